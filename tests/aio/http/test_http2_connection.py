"""HTTP/2 as clients that mean harm speak it, below what the library for clients would let them do."""

from __future__ import annotations

import asyncio
import fcntl
import select
import socket
import struct
import termios
from dataclasses import replace
from pathlib import Path

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack import Encoder
from structlog.testing import capture_logs

from cloud_server.frontends.konnectivity import frontend
from protos.konnectivity_pb2 import Packet, PacketType
from tests.cloud_server.frontends.konnectivity.raw_http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    HELLO,
    PADDED,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    data_of,
    dial_of,
    frame,
    raw,
    request,
)
from tests.cloud_server.frontends.konnectivity.served import (
    ECHO,
    NEVER_ANSWERS,
    SINK,
    SOURCE,
    Served,
)
from tests.support.konnectivity_client import (
    DIAL_EXAMPLE,
    EMPTY_SETTINGS,
    PREFACE,
    connected,
    framed,
    request_headers,
)
from tests.support.waits import eventually
from tunnel.aio.http import flood, http2_connection
from tunnel.aio.http.http2_limits import FRAME_BYTES

TOO_MUCH = "the client sent too much that is no data"
WIDE = struct.pack(">I", 2**30)
DOWNLOAD = b"".join(
    (
        HELLO,
        request(1),
        frame(WINDOW_UPDATE, WIDE),
        frame(WINDOW_UPDATE, WIDE, stream=1),
        frame(DATA, dial_of(SOURCE), stream=1),
    )
)
"""A tunnel to SOURCE, with windows that never close."""


# Beginnings


async def test_settings_come_before_anything_is_asked(site: Served) -> None:
    async with raw(site.path) as client:
        payload = await client.until(SETTINGS)
        settings = dict(struct.iter_unpack(">HI", payload))
        assert settings[SettingCodes.MAX_CONCURRENT_STREAMS] == frontend.LIMITS.max_streams
        assert settings[SettingCodes.INITIAL_WINDOW_SIZE] == frontend.LIMITS.window_bytes


async def test_all_in_one_piece(site: Served) -> None:
    async with raw(site.path, HELLO + request(1) + frame(DATA, framed(DIAL_EXAMPLE), stream=1)) as client:
        answer = Packet.FromString((await client.until(DATA))[5:])
        assert answer.type == PacketType.DIAL_RSP


async def test_byte_by_byte(site: Served) -> None:
    async with raw(site.path, b"") as client:
        for byte in HELLO + request(1) + frame(DATA, framed(DIAL_EXAMPLE), stream=1):
            await client.send(bytes([byte]))
        assert Packet.FromString((await client.until(DATA))[5:]).type == PacketType.DIAL_RSP


async def test_a_preface_that_goes_wrong(site: Served) -> None:
    async with raw(site.path, b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n") as client:
        await client.ended()


@pytest.mark.parametrize("said", [b"", PREFACE[:20], HELLO, HELLO + frame(HEADERS, b"", stream=1)[:9]])
async def test_a_connection_that_asks_for_nothing_is_closed(
    site: Served, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frontend, "LIMITS", replace(frontend.LIMITS, first_s=0.02))
    async with raw(site.path, said) as client:
        assert await client.goaway() == ErrorCodes.NO_ERROR


async def test_a_connection_is_idle_again_when_its_last_call_is_over(
    site: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frontend, "LIMITS", replace(frontend.LIMITS, idle_s=0.05))
    async with connected(site.path) as client:
        call = await client.tunnel(f"10.0.0.1:{ECHO}")
        for _ in range(10):
            await asyncio.sleep(0.01)
            await call.send_data(b"x")
            await call.receive_data(1)
        assert not client.gone.is_set()
        await call.ask_to_close()
        await client.gone.wait()
        assert client.goaway == ErrorCodes.NO_ERROR


# Pings


async def test_pings_are_answered_at_once(site: Served) -> None:
    async with raw(site.path) as client:
        await client.until(SETTINGS)
        await client.send(frame(PING, bytes.fromhex("02041010090e0707")))
        assert await client.until(PING) == bytes.fromhex("02041010090e0707")


@pytest.mark.parametrize(
    "flood_of",
    [
        frame(PING, bytes(8)),
        EMPTY_SETTINGS,
        frame(SETTINGS, struct.pack(">HI", 4, 1)),
        frame(WINDOW_UPDATE, b"\x00\x00\x00\x01"),
        frame(PRIORITY, b"\x00\x00\x00\x00\x10", stream=99),
        frame(0xEE, b""),
        frame(DATA, b"", stream=1),
        frame(DATA, b"\x00", stream=1, flags=PADDED),
        frame(RST_STREAM, bytes(4), stream=1),
    ],
)
async def test_frames_that_move_nothing_are_too_many_at_last(
    site: Served, flood_of: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flood, "REFILL_BYTES_PER_S", 0.0)  # or a busy machine, which takes seconds, could allow them
    with capture_logs() as logs:
        async with raw(site.path, HELLO + request(1)) as client:
            sending = asyncio.get_running_loop().create_task(client.send(flood_of * 30_000))
            await client.ended()
            sending.cancel()
            await asyncio.wait({sending})
    assert [line["reason"] for line in logs if line["event"] == "connection closed"] == [TOO_MUCH]


async def test_nothing_more_is_read_from_a_client_that_does_not_read(
    site: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flood, "REFILL_BYTES_PER_S", 1e12)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, str(site.path))
        await loop.sock_sendall(sock, HELLO)
        pings, taken = frame(PING, bytes(8)) * 1000, 0
        try:
            while taken < 20_000_000:
                async with asyncio.timeout(0.5):
                    await loop.sock_sendall(sock, pings)
                taken += len(pings)
        except TimeoutError:
            pass
        assert taken < 3_000_000
        received = 0
        async with asyncio.timeout(5):  # and it goes on when the client reads
            while received < taken:
                received += len(await loop.sock_recv(sock, 1_000_000))


# Headers


async def test_a_header_block_that_never_ends(site: Served) -> None:
    more = frame(CONTINUATION, b"", stream=1)
    async with raw(site.path, HELLO + frame(HEADERS, b"", stream=1) + more * 100) as client:
        assert await client.goaway() == ErrorCodes.PROTOCOL_ERROR


async def test_headers_that_unpack_to_more_than_they_are(site: Served) -> None:
    encoder = Encoder()
    encoder.encode([("x-bomb", "b" * 4000)])
    bomb = encoder.encode([("x-bomb", "b" * 4000)]) * 100
    assert len(bomb) < 200
    first = Encoder().encode([("x-bomb", "b" * 4000)])
    async with raw(site.path, HELLO + frame(HEADERS, first + bomb, stream=1, flags=END_HEADERS)) as client:
        assert await client.goaway() == ErrorCodes.ENHANCE_YOUR_CALM


async def test_many_headers(site: Served) -> None:
    block = Encoder().encode([*request_headers(Path("/s")), *((f"x-{n}", "y" * 100) for n in range(120))])
    async with raw(site.path, HELLO + frame(HEADERS, block, stream=1, flags=END_HEADERS)) as client:
        assert await client.goaway() == ErrorCodes.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(("asked", "told"), [(2**32 - 1, b"\x3f\xe1\x1f"), (0, b"\x20")])
async def test_no_more_headers_are_remembered_for_a_client_than_there_is_memory_for(
    site: Served, asked: int, told: bytes
) -> None:
    async with raw(site.path, HELLO + frame(SETTINGS, struct.pack(">HI", 1, asked)) + request(1)) as client:
        block = await client.until(HEADERS)
        assert told in block[:12]  # the size that we end with: 4096 at most


# Streams


async def test_more_streams_than_there_may_be(site: Served) -> None:
    async with raw(site.path) as client:
        await client.send(b"".join(request(2 * n + 1) for n in range(frontend.LIMITS.max_streams + 1)))
        assert await client.goaway() != ErrorCodes.NO_ERROR


async def test_rapid_resets_are_limited_and_leave_no_dial(site: Served) -> None:
    wire = dial_of(NEVER_ANSWERS)
    cancel = struct.pack(">I", ErrorCodes.CANCEL)
    with capture_logs() as logs:
        async with raw(site.path) as client:
            for start in range(0, 2000, 10):
                numbers = [2 * (start + n) + 1 for n in range(10)]
                await client.send(b"".join(request(n) + frame(DATA, wire, stream=n) for n in numbers))
                await client.send(b"".join(frame(RST_STREAM, cancel, stream=n) for n in numbers))
            await client.ended()
    assert [line["reason"] for line in logs if line["event"] == "connection closed"] == [TOO_MUCH]
    assert len(site.site.asked) < 1000
    await eventually(lambda: site.far.dialling == 0)


async def test_two_hundred_calls_may_be_cancelled_at_once(site: Served) -> None:
    async with connected(site.path) as client:
        calls = [await client.call() for _ in range(frontend.LIMITS.max_streams)]
        for call in calls:
            client.h2.reset_stream(call.id, ErrorCodes.CANCEL)
        await client.flush()
        await client.tunnel(f"10.0.0.1:{ECHO}")


# Ends


async def test_a_drained_connection_goes_on_until_its_last_call_is_over(site: Served) -> None:
    dial = frame(DATA, dial_of(ECHO), stream=1)
    async with raw(site.path, HELLO + request(1) + dial) as client, connected(site.path) as idle:
        answer = Packet.FromString((await client.until(DATA))[5:])
        site.frontend.drain()
        await idle.gone.wait()
        assert struct.unpack(">II", await client.until(GOAWAY)) == (1, ErrorCodes.NO_ERROR)
        number = answer.dial_response.connect_id
        await client.send(frame(DATA, data_of(number, b"goes on"), stream=1))
        assert Packet.FromString((await client.until(DATA))[5:]).data.data == b"goes on"
        await client.send(frame(RST_STREAM, struct.pack(">I", ErrorCodes.CANCEL), stream=1))
        assert await client.goaway() == ErrorCodes.NO_ERROR


async def test_a_late_call_on_a_drained_connection_is_refused(site: Served) -> None:
    async with raw(site.path, HELLO + request(1)) as client:
        await client.until(HEADERS)
        site.frontend.drain()
        await client.send(request(3))
        assert struct.unpack(">I", await client.until(RST_STREAM))[0] == ErrorCodes.REFUSED_STREAM


async def test_a_connection_that_was_still_coming_is_told_of_the_drain_too(site: Served) -> None:
    site.frontend.drain()
    # Without the drain it would be closed, too, after the time for a first call.
    async with asyncio.timeout(frontend.LIMITS.first_s / 2), raw(site.path, HELLO) as late:
        assert struct.unpack(">II", await late.until(GOAWAY)) == (0, ErrorCodes.NO_ERROR)


async def test_a_stop_ends_all_tunnels(site: Served) -> None:
    async with connected(site.path) as client:
        open_call = await client.tunnel(f"10.0.0.1:{SINK}")
        dialling = await client.call()
        await dialling.ask(f"10.0.0.1:{NEVER_ANSWERS}")
        await eventually(lambda: site.far.dialling == 1)
        await site.listener.aclose()
        (ended,) = site.records.of("end")
        assert (ended["reason"], ended["text"]) == ("connection_reset", "the server closed the connection")
        await client.gone.wait()
        assert client.goaway == ErrorCodes.NO_ERROR
        assert open_call.over
    assert await site.far.endpoints[0].ended == "connection_reset"
    await eventually(lambda: site.far.given_up == 1)


async def test_last_words_that_nobody_reads_keep_neither_a_connection_nor_its_tunnels(
    site: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2_connection, "CLOSE_S", 0.05)
    site.far.payload = bytes(8 * 1024 * 1024)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, str(site.path))
        await loop.sock_sendall(sock, DOWNLOAD)
        await eventually(lambda: unread_bytes(sock) > 150_000)
        await loop.sock_sendall(sock, frame(DATA, b"", stream=0))  # which breaks the protocol
        assert await site.far.endpoints[0].ended == "connection_reset"
        await eventually(lambda: hung_up(sock))


async def test_a_tunnel_ends_with_its_connection_whatever_is_unread(
    site: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http2_connection, "CLOSE_S", 3600.0)
    site.far.payload = bytes(8 * 1024 * 1024)
    async with raw(site.path, DOWNLOAD) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        sock = client.writer.get_extra_info("socket")
        await eventually(lambda: unread_bytes(sock) > 150_000)
        await client.send(frame(DATA, b"", stream=0))
        assert await site.far.endpoints[0].ended == "connection_reset"


def unread_bytes(sock: socket.socket) -> int:
    unread: int = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.FIONREAD, bytes(4)))[0]
    return unread


def hung_up(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(0))


async def test_no_connection_has_the_server_for_itself(site: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_connection, "TURN_BYTES", FRAME_BYTES)
    site.far.payload = bytes(1024 * 1024)
    async with raw(site.path, DOWNLOAD) as client:
        # Nothing that the client says makes the server go on: it does so by itself.
        assert await client.all_data() > len(site.far.payload)
