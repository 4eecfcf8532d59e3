"""A connection through the tunnel is as good as a direct one: its ends, its resets, its first and its last byte."""

from __future__ import annotations

import socket
import time

import pytest

from tests.support.targets import BANNER, pattern, pattern_digest, receive_digest
from tests.support.tunnel import Tunnel, exchange, read_exactly, read_to_end, reset, wait_until
from tests.support.waits import scaled_s

MIB = 1024 * 1024


@pytest.mark.parametrize("way", ["forward", "connect"])
def test_half_close_echo(shared: Tunnel, way: str) -> None:
    sent = b"".join(pattern(1, 3 * MIB))
    with shared.dial("late-echo") if way == "forward" else shared.connect("late-echo") as sock:
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_WR)
        assert read_to_end(sock) == sent


def test_the_target_may_end_first(shared: Tunnel) -> None:
    with shared.dial("close") as sock:
        assert read_to_end(sock) == b"bye\n"


@pytest.mark.parametrize("way", ["forward", "connect"])
def test_write_then_close_delivers_everything(shared: Tunnel, way: str) -> None:
    counted = shared.targets["count"].counted
    counted.clear()
    data = b"".join(pattern(2, 300_000))
    for _ in range(30):
        with shared.dial("count") if way == "forward" else shared.connect("count") as sock:
            sock.sendall(data)
    wait_until(lambda: len(counted) == 30, f"30 uploads that end cleanly, not {len(counted)}")
    assert set(counted) == {(300_000, pattern_digest(2, 300_000))}


def test_a_client_reset_reaches_the_target_as_a_reset(shared: Tunnel) -> None:
    endings = shared.targets["echo"].endings
    endings.clear()
    for _ in range(10):
        sock = shared.dial("echo")
        assert exchange(sock) == b"ping"
        reset(sock)
    wait_until(lambda: len(endings) == 10, "ten connections that end")
    assert set(endings) == {"ConnectionResetError"}


def test_a_reset_by_the_target_reaches_the_client_as_a_reset(shared: Tunnel) -> None:
    for _ in range(10):
        with shared.dial("reset") as sock:
            sock.sendall(b"a")
            assert sock.recv(1) == b"!"
            sock.sendall(b"b")
            with pytest.raises(ConnectionResetError):
                sock.recv(1)


def test_a_server_that_speaks_first_is_heard_every_time(shared: Tunnel) -> None:
    for _ in range(50):
        for sock in (shared.connect("banner"), shared.dial("banner")):
            with sock:
                assert read_exactly(sock, len(BANNER)) == BANNER


def test_bytes_glued_to_the_head_are_not_lost(shared: Tunnel) -> None:
    glued = b"".join(pattern(3, 50_000))
    for _ in range(50):
        with shared.connect("echo", glued=glued) as sock:
            assert read_exactly(sock, len(glued)) == glued


def test_a_download_and_an_upload_are_whole(shared: Tunnel) -> None:
    size = 64 * MIB
    with shared.dial("source") as sock:
        sock.sendall(f"5 {size}\n".encode())
        assert receive_digest(sock) == (size, pattern_digest(5, size))
    with shared.dial("count") as sock:
        for block in pattern(6, size):
            sock.sendall(block)
        sock.shutdown(socket.SHUT_WR)
        assert str(size) in read_to_end(sock).decode()
    assert shared.targets["count"].counted[-1] == (size, pattern_digest(6, size))


def test_readers_that_stop_harm_nobody(shared: Tunnel) -> None:
    daemons = (shared.cluster.server, shared.box.agent)
    before = [daemon.rss_bytes() for daemon in daemons]
    stalled = [shared.dial("flood") for _ in range(32)] + [shared.dial("stalled") for _ in range(32)]
    try:
        for sock in stalled[32:]:
            sock.settimeout(0.01)
            with pytest.raises(TimeoutError):
                sock.sendall(bytes(64 * MIB))
        with shared.dial("echo") as sock, shared.dial("source") as bulk:
            slowest_s = 0.0
            for _ in range(50):
                start = time.monotonic()
                assert exchange(sock) == b"ping"
                slowest_s = max(slowest_s, time.monotonic() - start)
            bulk.sendall(f"8 {16 * MIB}\n".encode())
            assert receive_digest(bulk) == (16 * MIB, pattern_digest(8, 16 * MIB))
        # Behind one of them it would stand still; the rest is the machine's noise.
        assert slowest_s < scaled_s(5.0)
        grown = [daemon.rss_bytes() - was for daemon, was in zip(daemons, before, strict=True)]
        assert max(grown) < 160 * MIB, f"server and agent grew by {[each // MIB for each in grown]} MiB"
    finally:
        for sock in stalled:
            reset(sock)


def test_a_slow_reader_gets_everything(shared: Tunnel) -> None:
    with shared.dial("source") as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        sock.sendall(f"9 {4 * MIB}\n".encode())
        received = bytearray()
        while data := sock.recv(65536):
            received += data
            time.sleep(0.002)
        assert bytes(received) == b"".join(pattern(9, 4 * MIB))
