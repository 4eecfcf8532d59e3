from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.support import waits
from tests.support.carriers import AGENT, DIRECT, cloud, echo
from tests.support.connect_proxy import relay
from tests.support.leaks import open_descriptors, unfinished_tasks
from tunnel.aio.carriers.carrier import Carrier, CarrierLost
from tunnel.aio.carriers.channel import open_channel, release
from tunnel.core.wire.limits import MAX_MESSAGE_BYTES


async def _hold(carrier: Carrier, _uri: str, _spki: bytes) -> None:
    """Says hello and then waits for the carrier's end."""
    await carrier.write(b"hello")
    while await carrier.read() is not None:
        pass


def _holding(seen: list[Carrier]) -> Callable[[Carrier, str, bytes], Awaitable[None]]:
    async def hold(carrier: Carrier, uri: str, spki: bytes) -> None:
        seen.append(carrier)
        await _hold(carrier, uri, spki)

    return hold


async def _lost(awaitable: Awaitable[object], within_s: float = 5.0) -> CarrierLost:
    async with asyncio.timeout(waits.scaled_s(within_s)):
        with pytest.raises(CarrierLost) as caught:
            await awaitable
    return caught.value


@pytest.mark.parametrize("size", [0, 1, 4095, 65536, 256 * 1024, MAX_MESSAGE_BYTES])
async def test_a_message_of_any_size_comes_back_whole(size: int) -> None:
    async with cloud(echo) as server:
        carrier = await server.dial()
        message = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
        await carrier.write(message)
        assert await carrier.read() == message
        carrier.close()


async def test_a_message_that_is_too_long_is_refused_here_and_harms_nothing() -> None:
    async with cloud(echo) as server:
        carrier = await server.dial()
        with pytest.raises(ValueError, match="longer than"):
            await carrier.write(bytes(MAX_MESSAGE_BYTES + 1))
        await carrier.write(b"still there")
        assert await carrier.read() == b"still there"
        carrier.close()


async def test_thousands_of_small_messages_keep_their_order() -> None:
    async with cloud(echo) as server:
        carrier = await server.dial()

        async def send() -> None:
            for number in range(3_000):
                await carrier.write(b"%d" % number)
            await carrier.finish()

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            for number in range(3_000):
                assert await carrier.read() == b"%d" % number
            assert await carrier.read() is None
        assert await carrier.read() is None
        carrier.close()


async def test_the_owner_learns_who_dialled_from_the_certificate() -> None:
    told: list[tuple[str, bytes, str]] = []

    async def note(carrier: Carrier, uri: str, spki: bytes) -> None:
        told.append((uri, spki, carrier.peer))
        await _hold(carrier, uri, spki)

    async with cloud(note) as server:
        for _ in range(2):
            carrier = await server.dial()
            assert await carrier.read() == b"hello"
            carrier.close()
    (uri, spki, peer), (_, again, _) = told
    assert uri == AGENT
    assert len(spki) == 32
    assert spki == again
    assert peer.startswith("127.0.0.1:")


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0", "localhost:0"])
async def test_addresses_of_every_form(listen: str) -> None:
    async with cloud(echo, listen=[listen]) as server:
        carrier = await server.dial(address=f"{listen[:-2]}:{server.server.ports[0]}")
        await carrier.write(b"here")
        assert await carrier.read() == b"here"
        carrier.close()


# Ends


class _Flood:
    """A task that writes without end."""

    def __init__(self, carrier: Carrier) -> None:
        self.accepted_bytes = 0
        self._carrier = carrier
        self.task = asyncio.get_running_loop().create_task(self._write())

    async def _write(self) -> None:
        while True:
            await self._carrier.write(bytes(512 * 1024))
            self.accepted_bytes += 512 * 1024

    async def blocked(self) -> None:
        """Wait until nothing was accepted for half a second."""
        before = -1
        while before != self.accepted_bytes:
            before = self.accepted_bytes
            await asyncio.sleep(0.5)


async def test_closing_here_ends_a_pending_read_and_the_other_side() -> None:
    seen: list[Carrier] = []
    over = asyncio.Event()

    async def hold(carrier: Carrier, uri: str, spki: bytes) -> None:
        seen.append(carrier)
        try:
            await _hold(carrier, uri, spki)
        finally:
            over.set()

    async with cloud(hold) as server:
        carrier = await server.dial()
        assert await carrier.read() == b"hello"
        reading = asyncio.get_running_loop().create_task(carrier.read())
        await asyncio.sleep(0)
        carrier.close()
        carrier.close()
        assert "closed here" in (await _lost(reading)).text
        await _lost(carrier.read())
        await _lost(carrier.write(b"late"))
        async with asyncio.timeout(waits.scaled_s(5)):
            await over.wait()
        await _lost(seen[0].write(b"late"))


async def test_closing_at_the_server_ends_its_pending_read_and_the_box() -> None:
    seen: list[Carrier] = []
    lost: list[CarrierLost] = []

    async def hold(carrier: Carrier, uri: str, spki: bytes) -> None:
        seen.append(carrier)
        try:
            await _hold(carrier, uri, spki)
        except CarrierLost as error:
            lost.append(error)

    async with cloud(hold) as server:
        carrier = await server.dial()
        assert await carrier.read() == b"hello"
        seen[0].close()
        async with asyncio.timeout(waits.scaled_s(5)):
            assert await carrier.read() is None
        await waits.eventually(lambda: lost)
        assert "closed here" in lost[0].text
        await _lost(carrier.write(b"late"))
        carrier.close()


async def test_closing_while_both_sides_write_without_reading() -> None:
    blocked: list[CarrierLost] = []

    async def flood(carrier: Carrier, _uri: str, _spki: bytes) -> None:
        try:
            while True:
                await carrier.write(bytes(512 * 1024))
        except CarrierLost as error:
            blocked.append(error)

    async with cloud(flood) as server:
        carrier = await server.dial()
        ours = _Flood(carrier)
        await ours.blocked()
        carrier.close()
        await _lost(ours.task)
        await waits.eventually(lambda: blocked)


async def test_what_was_written_before_finish_is_delivered() -> None:
    got: list[bytes] = []
    done = asyncio.Event()

    async def collect(carrier: Carrier, _uri: str, _spki: bytes) -> None:
        while (message := await carrier.read()) is not None:
            got.append(message)
        done.set()

    async with cloud(collect) as server:
        carrier = await server.dial()
        for _ in range(20):
            await carrier.write(bytes(100_000))
        await carrier.finish()
        async with asyncio.timeout(waits.scaled_s(10)):
            await done.wait()
            assert await carrier.read() is None
        assert len(got) == 20
        carrier.close()


async def test_what_the_server_wrote_before_it_closed_is_delivered() -> None:
    async def farewell(carrier: Carrier, _uri: str, _spki: bytes) -> None:
        for _ in range(20):
            await carrier.write(bytes(100_000))

    async with cloud(farewell) as server:
        carrier = await server.dial()
        for _ in range(20):
            assert await carrier.read() == bytes(100_000)
        assert await carrier.read() is None
        carrier.close()


async def _write_on(carrier: Carrier) -> None:
    while True:
        await carrier.write(b"hello")


async def test_what_the_server_said_last_is_read_after_a_write_that_came_too_late() -> None:
    async def refuse(carrier: Carrier, _uri: str, _spki: bytes) -> None:
        await carrier.write(b"refused")
        await carrier.write(b"because")

    async with cloud(refuse) as server:
        carrier = await server.dial()
        assert "the other side ended the call" in (await _lost(_write_on(carrier))).text
        await carrier.finish()
        assert [await carrier.read(), await carrier.read(), await carrier.read()] == [b"refused", b"because", None]
        carrier.close()


async def test_one_write_that_came_too_late_is_the_readers_to_explain() -> None:
    """A box that greets a server while that one refuses it."""

    async def refuse(carrier: Carrier, _uri: str, _spki: bytes) -> None:
        await carrier.write(b"refused because")

    async with cloud(refuse) as server:
        for _ in range(80):
            carrier = await server.dial()
            await carrier.write(b"hello")
            assert await carrier.read() == b"refused because"
            carrier.close()


async def test_a_cut_connection_ends_both_reads_at_once() -> None:
    lost: list[object] = []

    async def hold(carrier: Carrier, _uri: str, _spki: bytes) -> None:
        try:
            lost.append(await carrier.read())
        except CarrierLost as error:
            lost.append(error)

    async with cloud(hold) as server, relay(server.server.ports[0]) as middle:
        carrier = await server.dial(address=f"127.0.0.1:{middle.port}")
        reading = asyncio.get_running_loop().create_task(carrier.read())
        await asyncio.sleep(0)
        middle.cut()
        error = await _lost(reading, within_s=2.0)
        assert "connection" in error.text
        await waits.eventually(lambda: lost, within_s=2.0)
        assert isinstance(lost[0], CarrierLost)
        carrier.close()


async def test_closing_over_a_frozen_link_does_not_wait_for_it() -> None:
    seen: list[Carrier] = []
    async with cloud(_holding(seen)) as server, relay(server.server.ports[0]) as middle:
        carrier = await server.dial(address=f"127.0.0.1:{middle.port}")
        assert await carrier.read() == b"hello"
        reading = asyncio.get_running_loop().create_task(carrier.read())
        middle.frozen.set()
        await asyncio.sleep(0)
        carrier.close()
        await _lost(reading, within_s=1.0)
        began = time.monotonic()
        await server.server.stop(0.5)
        assert time.monotonic() - began < waits.scaled_s(3)


async def test_cancelling_the_reader_ends_the_carrier_and_is_not_swallowed() -> None:
    async with cloud(_hold) as server:
        carrier = await server.dial()
        assert await carrier.read() == b"hello"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await carrier.read()
        await _lost(carrier.read())


async def test_two_readers_are_a_fault_of_the_caller() -> None:
    async with cloud(_hold) as server:
        carrier = await server.dial()
        assert await carrier.read() == b"hello"
        first = asyncio.get_running_loop().create_task(carrier.read())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="two tasks read"):
            await carrier.read()
        carrier.close()
        await _lost(first)


async def test_closing_a_channel_takes_one_step() -> None:
    """`release` relies on it: grpc.aio's close() without a grace has nothing to wait for."""
    async with cloud(_hold) as server:
        channel = await open_channel(server.address, server.tls(), DIRECT)
        closing = channel.close(None)
        with pytest.raises(StopIteration):
            closing.send(None)
        release(channel)


async def test_one_call_carries_16_mib_that_the_other_side_has_not_read() -> None:
    """What flow control must allow so that 16 MiB may be in flight; and that it is bounded."""

    async def deaf(carrier: Carrier, _uri: str, _spki: bytes) -> None:
        await carrier.read()
        await asyncio.Event().wait()

    async with cloud(deaf) as server:
        carrier = await server.dial()
        ours = _Flood(carrier)
        await ours.blocked()
        carrier.close()
        await _lost(ours.task)
        assert 16 * 2**20 <= ours.accepted_bytes <= 64 * 2**20


async def test_80_dials_leave_nothing() -> None:
    async with cloud(_hold) as server:
        first = await server.dial()
        assert await first.read() == b"hello"
        first.close()
        await waits.eventually(lambda: not unfinished_tasks() or _settled())
        before = len(open_descriptors())
        for number in range(80):
            carrier = await server.dial()
            assert await carrier.read() == b"hello"
            if number % 2:
                await carrier.finish()
                assert await carrier.read() is None
            carrier.close()
        await waits.eventually(lambda: len(open_descriptors()) <= before + 2 and _settled())


def _settled() -> bool:
    return not [name for name in unfinished_tasks() if "carrier" in name.lower() and "certificates" not in name]
