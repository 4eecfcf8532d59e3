"""The relay is what other tests measure with: its delay, rate, queue and faults are right."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.relay import Relay
from tests.support.relay_pipe import Shape
from tests.support.relay_process import RelayProcess

MIB = 1024 * 1024


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


@contextlib.contextmanager
def joined(relay: Relay | RelayProcess, server: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection through the relay: its near and its far end."""
    with socket.create_connection(("127.0.0.1", relay.port), 10) as near:
        far, _ = server.accept()
        with far:
            far.settimeout(10)
            far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield near, far


def read_all(sock: socket.socket) -> int:
    total = 0
    buffer = bytearray(MIB)
    while count := sock.recv_into(buffer):
        total += count
    return total


def timed_transfer(near: socket.socket, far: socket.socket, size_bytes: int) -> float:
    counted: list[int] = []
    reader = threading.Thread(target=lambda: counted.append(read_all(far)))
    start = time.monotonic()
    reader.start()
    block = bytes(min(MIB, size_bytes))
    for _ in range(size_bytes // len(block)):
        near.sendall(block)
    near.shutdown(socket.SHUT_WR)
    reader.join(60)
    assert counted == [size_bytes]
    return time.monotonic() - start


def round_trip_s(near: socket.socket, far: socket.socket) -> float:
    start = time.monotonic()
    near.sendall(b"x")
    assert far.recv(1) == b"x"
    far.sendall(b"y")
    assert near.recv(1) == b"y"
    return time.monotonic() - start


def test_delay_is_added_in_each_direction() -> None:
    with listening() as server, Relay(server.getsockname(), up=Shape(delay_s=0.08), down=Shape(delay_s=0.02)) as relay:
        with joined(relay, server) as (near, far):
            best = min(round_trip_s(near, far) for _ in range(5))
            assert 0.1 <= best < 0.2


@pytest.mark.parametrize("delay_s", [0.0, 0.05])
def test_rate_holds_whatever_the_delay(delay_s: float) -> None:
    shape = Shape(rate_bytes_s=8 * MIB, delay_s=delay_s)
    with listening() as server, Relay(server.getsockname(), up=shape) as relay, joined(relay, server) as (near, far):
        took_s = timed_transfer(near, far, 8 * MIB)
        assert 1.0 <= took_s - delay_s < 1.6


def test_two_connections_share_the_rate() -> None:
    with listening() as server, Relay(server.getsockname(), up=Shape(rate_bytes_s=8 * MIB)) as relay:
        with joined(relay, server) as first, joined(relay, server) as second:
            other = threading.Thread(target=timed_transfer, args=(*second, 4 * MIB))
            start = time.monotonic()
            other.start()
            timed_transfer(*first, 4 * MIB)
            other.join(30)
            assert 1.0 <= time.monotonic() - start < 1.6


def test_connections_that_keep_the_queue_full_get_the_same_share() -> None:
    shape = Shape(rate_bytes_s=4 * MIB, queue_bytes=MIB // 4)
    with listening() as server, Relay(server.getsockname(), up=shape) as relay:
        with joined(relay, server) as first, joined(relay, server) as second:
            carried = [0, 0]

            def fill(near: socket.socket) -> None:
                with contextlib.suppress(OSError):
                    near.sendall(bytes(16 * MIB))

            def drain(one: int, far: socket.socket) -> None:
                while sum(carried) < 4 * MIB:
                    carried[one] += len(far.recv(65536))

            fillers = [threading.Thread(target=fill, args=(near,)) for near, _ in (first, second)]
            drainers = [threading.Thread(target=drain, args=(one, ends[1])) for one, ends in enumerate((first, second))]
            for thread in (*fillers, *drainers):
                thread.start()
            for thread in drainers:
                thread.join(30)
            relay.cut()
            for thread in fillers:
                thread.join(30)
            assert min(carried) > 0.35 * sum(carried)


def test_new_connections_may_be_led_elsewhere() -> None:
    with listening() as server, listening() as other, RelayProcess(server.getsockname()) as relay:
        with joined(relay, server) as (near, far):
            relay.aim(other.getsockname())
            with joined(relay, other) as elsewhere:
                round_trip_s(*elsewhere)
            round_trip_s(near, far)


def test_a_full_queue_holds_the_sender_back_and_delays_what_follows() -> None:
    shape = Shape(rate_bytes_s=MIB, queue_bytes=MIB // 2)
    with listening() as server, Relay(server.getsockname(), up=shape) as relay, joined(relay, server) as (near, far):
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32 * 1024)
        reader = threading.Thread(target=read_all, args=(far,))
        reader.start()
        near.sendall(bytes(2 * MIB))
        start = time.monotonic()
        near.shutdown(socket.SHUT_WR)
        reader.join(30)
        # Half a second in the queue, a little in the kernel's buffers, and no second more.
        assert 0.3 < time.monotonic() - start < 1.2


def test_cut_by_reset_is_a_reset_at_both_ends() -> None:
    with listening() as server, Relay(server.getsockname()) as relay, joined(relay, server) as (near, far):
        round_trip_s(near, far)
        assert relay.cut() == 1
        for each in (near, far):
            with pytest.raises(ConnectionResetError):
                each.recv(1)
        with joined(relay, server) as again:
            round_trip_s(*again)
        assert relay.counters()["cut"] == 1


def test_cut_by_fin_is_an_end_at_both_ends() -> None:
    with listening() as server, Relay(server.getsockname()) as relay:
        with joined(relay, server) as (near, far):
            round_trip_s(near, far)
            relay.cut("fin")
            assert near.recv(1) == b""
            assert far.recv(1) == b""
        with joined(relay, server) as again:
            round_trip_s(*again)


def test_a_reset_at_one_end_is_a_reset_at_the_other() -> None:
    with listening() as server, Relay(server.getsockname()) as relay, joined(relay, server) as (near, far):
        round_trip_s(near, far)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        near.close()
        with pytest.raises(ConnectionResetError):
            far.recv(1)


def test_half_close_passes() -> None:
    with listening() as server, Relay(server.getsockname()) as relay, joined(relay, server) as (near, far):
        near.sendall(b"question")
        near.shutdown(socket.SHUT_WR)
        assert read_all(far) == 8
        far.sendall(b"answer")
        far.shutdown(socket.SHUT_WR)
        assert read_all(near) == 6


def test_nothing_is_lost_in_a_freeze() -> None:
    with listening() as server, Relay(server.getsockname()) as relay, joined(relay, server) as (near, far):
        relay.freeze()
        near.sendall(b"hello")
        far.settimeout(0.2)
        with pytest.raises(TimeoutError):
            far.recv(1)
        relay.heal()
        far.settimeout(10)
        assert far.recv(5, socket.MSG_WAITALL) == b"hello"


def test_a_black_hole_swallows_and_accepts_and_answers_nothing() -> None:
    with listening() as server, Relay(server.getsockname()) as relay, joined(relay, server) as (near, far):
        round_trip_s(near, far)
        relay.black_hole()
        near.sendall(bytes(4 * MIB))
        far.settimeout(0.2)
        with pytest.raises(TimeoutError):
            far.recv(1)
        with socket.create_connection(("127.0.0.1", relay.port), 10) as newcomer:
            newcomer.sendall(b"hello?")
            newcomer.settimeout(0.2)
            with pytest.raises(TimeoutError):
                newcomer.recv(1)
        near.close()
        with pytest.raises(TimeoutError):
            far.recv(1)
        relay.heal()
        with pytest.raises(TimeoutError):
            far.recv(1)
        with joined(relay, server) as again:
            round_trip_s(*again)


def test_an_idle_connection_survives_a_black_hole() -> None:
    with listening() as server, Relay(server.getsockname()) as relay, joined(relay, server) as (near, far):
        relay.black_hole()
        relay.heal()
        round_trip_s(near, far)


def test_refusing_keeps_what_is_open() -> None:
    with listening() as server, Relay(server.getsockname()) as relay, joined(relay, server) as (near, far):
        relay.refuse()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", relay.port), 10)
        round_trip_s(near, far)
        relay.heal()
        with joined(relay, server) as again:
            round_trip_s(*again)


def test_a_target_that_refuses_is_a_reset() -> None:
    with listening() as server:
        address = server.getsockname()
    with Relay(address) as relay, pytest.raises(ConnectionResetError):
        with socket.create_connection(("127.0.0.1", relay.port), 10) as near:
            near.recv(1)


def test_the_process_is_quick_and_counts() -> None:
    size = 512 * MIB
    with listening() as server:
        with socket.create_connection(server.getsockname()) as near, server.accept()[0] as far:
            direct_s = timed_transfer(near, far, size)
        with RelayProcess(server.getsockname()) as relay:
            with joined(relay, server) as ends:
                relayed_s = timed_transfer(*ends, size)
            counters = relay.counters()
    assert relayed_s < 10 * direct_s
    assert counters["up_bytes"] == size
    assert counters["accepted"] == 1


def test_the_process_takes_every_command() -> None:
    with listening() as server, RelayProcess(server.getsockname()) as relay:
        relay.shape(up=Shape(delay_s=0.1))
        with joined(relay, server) as (near, far):
            assert round_trip_s(near, far) >= 0.1
            relay.freeze()
            relay.heal()
            assert relay.cut() == 1
        relay.black_hole()
        relay.refuse()
        relay.heal()
        assert relay.counters()["accepted"] == 1
