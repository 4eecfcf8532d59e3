"""The client of lists and watches over HTTP/2, at a server that does what it likes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes

from tests.support.waits import eventually
from tunnel.aio.http import http2_client
from tunnel.aio.http.http2_client import WINDOW_BYTES, Http2Answer, Http2Client
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.listener import Listener
from tunnel.aio.sockets.tcp import connect_tcp
from tunnel.core.wire.errors import StreamError

OK = [(":status", "200"), ("content-type", "text/plain")]


class Server:
    """One connection of a server, told by the test what to do."""

    def __init__(self) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=False))
        self.conn: Conn
        self.requests: dict[str, int] = {}
        """By path, its stream."""
        self.resets: list[int] = []
        self.pings = 0
        self.is_silent = False
        self._waiting: dict[int, bytes] = {}

    async def serve(self, conn: Conn) -> None:
        self.conn = conn
        self.h2.initiate_connection()
        self.flush()
        with suppress(StreamError):
            while data := await conn.read():
                if self.is_silent:
                    continue
                for event in self.h2.receive_data(data):
                    self._handle(event)
                self._pump()

    def flush(self) -> None:
        self.conn.transport.write(self.h2.data_to_send())

    async def request(self, path: str) -> int:
        """Wait for a request, and return its stream."""
        await eventually(lambda: path in self.requests)
        return self.requests[path]

    async def answer(self, path: str, body: bytes, *, end: bool = True) -> int:
        """Answer a request, as fast as the client takes it."""
        stream = await self.request(path)
        self.h2.send_headers(stream, OK)
        self._waiting[stream] = body + (b"" if not end else b"\0")  # a mark for the end
        self._pump()
        return stream

    def _pump(self) -> None:
        for stream, left in list(self._waiting.items()):
            if stream in self.resets:
                del self._waiting[stream]
                continue
            while left:
                room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
                if left == b"\0":
                    self.h2.end_stream(stream)
                    left = b""
                elif room > 0:
                    part = left[: min(room, max(1, len(left) - 1) if left.endswith(b"\0") else len(left))]
                    self.h2.send_data(stream, part)
                    left = left[len(part) :]
                else:
                    break
            self._waiting[stream] = left
            if not left:
                del self._waiting[stream]
        self.flush()

    def _handle(self, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            path = dict(event.headers or ())[b":path"].decode()
            self.requests[path] = int(event.stream_id or 0)
        elif isinstance(event, events.StreamReset):
            self.resets.append(int(event.stream_id or 0))
        elif isinstance(event, events.PingReceived):
            self.pings += 1


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Http2Client, Server]]:
    server, tasks = Server(), TaskOwner("client")
    listener = Listener("server", server.serve)
    await listener.listen_tcp("127.0.0.1:0")
    conn = Conn()
    await connect_tcp(lambda: conn, "127.0.0.1", listener.ports[0])
    client = Http2Client(conn)
    tasks.spawn("run", client.run())
    try:
        yield client, server
    finally:
        client.close()
        await tasks.aclose()
        await listener.aclose()


def ask(client: Http2Client, path: str) -> Http2Answer:
    return client.get("api:6443", path, [("accept", "text/plain")])


async def whole(answer: Http2Answer) -> bytes:
    assert (await answer.response()).status == 200
    body = b""
    while chunk := await answer.read_chunk():
        body += chunk
    return body


async def test_answers_come_at_once_and_in_any_order() -> None:
    async with connected() as (client, server):
        answers = {path: ask(client, path) for path in ("/a", "/b", "/c")}
        for path in ("/c", "/a", "/b"):
            await server.answer(path, path.encode() * 1000)
        for path, answer in answers.items():
            assert await whole(answer) == path.encode() * 1000
        assert client.streams == 0


async def test_a_body_of_many_windows_is_whole() -> None:
    async with connected() as (client, server):
        answer = ask(client, "/big")
        body = bytes(range(1, 251)) * (5 * WINDOW_BYTES // 250)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.answer("/big", body))
            assert await whole(answer) == body


async def test_a_reader_that_is_slow_stops_no_other() -> None:
    async with connected() as (client, server):
        slow, quick = ask(client, "/slow"), ask(client, "/quick")
        await server.answer("/slow", b"x" * 4 * WINDOW_BYTES)
        body = b"y" * 3 * WINDOW_BYTES
        await server.answer("/quick", body)
        assert await whole(quick) == body
        assert slow._held_bytes == WINDOW_BYTES, "and no more than its window waits for it"
        assert len(await whole(slow)) == 4 * WINDOW_BYTES


async def test_a_request_that_is_given_up_is_reset() -> None:
    async with connected() as (client, server):
        answer = ask(client, "/watch")
        stream = await server.answer("/watch", b"first", end=False)
        assert (await answer.response()).status == 200
        assert await answer.read_chunk() == b"first"
        answer.close()
        await eventually(lambda: server.resets == [stream])
        assert client.streams == 0


async def test_the_servers_number_of_streams_holds() -> None:
    async with connected() as (client, server):
        ask(client, "/first")
        await server.request("/first")
        server.h2.update_settings({SettingCodes.MAX_CONCURRENT_STREAMS: 2})
        server.flush()
        assert client.has_room
        ask(client, "/second")
        await eventually(lambda: not client.has_room)


def _reset(server: Server, stream: int) -> None:
    server.h2.reset_stream(stream)
    server.flush()


def _go_away(server: Server, _stream: int) -> None:
    server.h2.close_connection()
    server.flush()


def _close(server: Server, _stream: int) -> None:
    server.conn.reset()


def _garbage(server: Server, _stream: int) -> None:
    server.conn.transport.write(b"\0\0\1" + b"\0\0" + bytes(4) + b"x")  # data on stream 0


def _no_status(server: Server, stream: int) -> None:
    server.h2.config.normalize_outbound_headers = server.h2.config.validate_outbound_headers = False
    server.h2.send_headers(stream, [(":status", "abc")])
    server.flush()


@pytest.mark.parametrize("end", [_reset, _go_away, _close, _garbage, _no_status])
async def test_an_answer_that_does_not_come_is_an_error(end: Callable[[Server, int], None]) -> None:
    async with connected() as (client, server):
        answer = ask(client, "/it")
        end(server, await server.request("/it"))
        with pytest.raises(StreamError):
            async with asyncio.timeout(5):
                await answer.response()
        if end is not _reset:
            await eventually(lambda: not client.has_room)
            with pytest.raises(StreamError):
                ask(client, "/more")


async def test_what_came_before_the_end_is_read_first() -> None:
    async with connected() as (client, server):
        answer = ask(client, "/watch")
        stream = await server.answer("/watch", b"event", end=False)
        await answer.response()
        _reset(server, stream)
        await eventually(lambda: client.streams == 0)
        assert await answer.read_chunk() == b"event"
        with pytest.raises(StreamError):
            await answer.read_chunk()


async def test_a_server_that_answers_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_client, "QUIET_S", 0.2)
    monkeypatch.setattr(http2_client, "ANSWER_S", 0.2)
    async with connected() as (client, server):
        answer = ask(client, "/watch")
        await server.answer("/watch", b"event", end=False)
        await eventually(lambda: server.pings >= 2)
        assert client.has_room, "it has answered them"
        server.is_silent = True
        assert (await answer.response()).status == 200
        assert await answer.read_chunk()
        with pytest.raises(StreamError, match="nothing came"):
            async with asyncio.timeout(5):
                await answer.read_chunk()
