"""Ports forwarded by the kubelet: pairs of streams, half-close, refusals, and what a hostile client may hold."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest

from edge_agent.hostkubelet import port_forward
from edge_agent.hostkubelet.settings import HostSettings
from tests.edge_agent.hostkubelet.conftest import POD, Box, serving
from tests.support.duplex_pair import MemoryDuplex
from tests.support.spdy_client import PING, RST_STREAM, SYN_REPLY, Frame, SpdyClientFrames, control, data, frames_in
from tests.support.waits import eventually
from tunnel.aio.exits.acceptor import Request, StreamAcceptor
from tunnel.aio.exits.policy import Policy
from tunnel.aio.http.http1 import ClientConnection
from tunnel.core.wire.errors import StreamError
from tunnel.core.wire.names import KUBELET
from tunnel.core.wire.target_rule import TargetRule

HEADERS = [
    ("host", "kubelet"),
    ("connection", "Upgrade"),
    ("upgrade", "SPDY/3.1"),
    ("x-stream-protocol-version", "portforward.k8s.io"),
]
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Client:
    """A kubectl: opens pairs of streams and keeps what comes back of each."""

    def __init__(self, duplex: MemoryDuplex, early: bytes) -> None:
        self.frames = SpdyClientFrames()
        self.seen: list[Frame] = []
        self._duplex = duplex
        self._buffer = bytearray(early)
        self._next_id = 1

    async def send(self, *frames: bytes) -> None:
        await self._duplex.write(b"".join(frames))

    async def pair(self, port: int, request: str = "") -> int:
        """Open an error stream and a data stream; returns the id of the latter, which is 2 more."""
        error, self._next_id = self._next_id, self._next_id + 4
        about = {"port": str(port)} | ({"requestid": request} if request else {})
        await self.send(
            self.frames.open(error, {"streamtype": "error", **about}, finished=True),
            self.frames.open(error + 2, {"streamtype": "data", **about}),
        )
        return error + 2

    async def until(self, condition: Callable[[list[Frame]], bool]) -> None:
        """Read until what was seen so far fits."""
        while not condition(self.seen):
            received = await self._duplex.read()
            assert received, f"the end, behind {self.seen}"
            self._buffer += received
            self.seen += frames_in(self._buffer)

    async def ended(self, stream_id: int) -> bytes:
        """All that came on a stream that the server has ended."""
        await self.until(lambda seen: any(frame.stream_id == stream_id and frame.finished for frame in seen))
        return b"".join(frame.content for frame in self.seen if (frame.kind, frame.stream_id) == (0, stream_id))

    async def leave(self) -> None:
        await self._duplex.aclose()


class Ports:
    """A box that may forward what the test serves, and nothing else."""

    def __init__(self, box: Box, acceptor: StreamAcceptor) -> None:
        self.box = box
        self.acceptor = acceptor
        self._rules: list[TargetRule] = []
        self._servers: list[asyncio.Server] = []

    async def serve(self, handler: Handler) -> int:
        """Listen with a handler, allow its port, and return it."""
        server = await asyncio.start_server(handler, "127.0.0.1", 0)
        self._servers.append(server)
        port = int(server.sockets[0].getsockname()[1])
        self._rules.append(TargetRule.parse(f"127.0.0.1:{port}"))
        self.apply()
        return port

    def forbid(self, port: int) -> int:
        """Take the rule of a port away; returns how many connections that ended."""
        self._rules = [rule for rule in self._rules if rule.text != f"127.0.0.1:{port}"]
        return self.apply()

    def apply(self, *, kubelet: bool = True) -> int:
        return self.acceptor.replace(Policy(self._rules), {KUBELET: served} if kubelet else {})

    async def client(self) -> Client:
        duplex = self.box.connect()
        http = ClientConnection(duplex)
        response = await http.request("POST", f"/portForward/default/{POD}", [*HEADERS, ("content-length", "0")])
        assert response.status == 101
        assert response.headers.get("x-stream-protocol-version") == "portforward.k8s.io"
        return Client(duplex, http.trailing_data())

    async def aclose(self) -> None:
        for server in self._servers:
            server.close()
            await server.wait_closed()


@pytest.fixture
async def ports() -> AsyncIterator[Ports]:
    acceptor = StreamAcceptor(Policy([]), {KUBELET: served})
    async with serving(HostSettings(), dial=partial(acceptor.dialled, through=KUBELET)) as box:
        made = Ports(box, acceptor)
        yield made
        await made.aclose()


async def served(_request: Request) -> None:
    """What the box offers as its kubelet: nobody asks for it by the tunnel here."""


async def late_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(await reader.read())
    writer.close()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while received := await reader.read(65536):
        writer.write(received)
        await writer.drain()
    writer.close()


async def test_half_close_both_ways_and_the_end_of_both_streams(ports: Ports) -> None:
    port = await ports.serve(late_echo)
    client = await ports.client()
    records = ports.box.records
    stream = await client.pair(port, "0")
    await client.send(data(stream, b"question"), data(stream, b"", finished=True))
    assert await client.ended(stream) == b"question"
    assert await client.ended(stream - 2) == b""
    await eventually(lambda: records.of("end"))
    (start,), (line,) = records.of("open"), records.of("end")
    assert (start["action"], start["target"]) == ("portforward", f"localhost:{port}")
    assert (line["action"], line["target"], line["reason"]) == ("portforward", f"localhost:{port}", "closed")
    assert (line["bytes_to_agent"], line["bytes_from_agent"]) == (8, 8)
    assert [frame.stream_id for frame in client.seen if frame.kind == SYN_REPLY] == [1, 3]
    await client.leave()


async def test_pairs_without_an_id_are_those_of_old_clients(ports: Ports) -> None:
    port = await ports.serve(late_echo)
    client = await ports.client()
    streams = [await client.pair(port) for _ in range(3)]
    for number, stream in enumerate(reversed(streams)):
        await client.send(data(stream, b"%d" % number, finished=True))
        assert await client.ended(stream) == b"%d" % number
    await client.leave()


async def test_the_number_of_a_pair_that_was_given_up_can_be_taken_at_once(ports: Ports) -> None:
    port = await ports.serve(late_echo)
    client = await ports.client()
    first = await client.pair(port, "0")
    await client.send(data(first, b"x"))
    await client.until(lambda seen: len(seen) == 2)
    about = {"port": str(port), "requestid": "0"}
    await client.send(
        control(RST_STREAM, struct.pack(">II", first, 5)),
        client.frames.open(5, {"streamtype": "error", **about}, finished=True),
    )
    await client.until(lambda seen: seen[-1].stream_id == 5)
    await client.send(client.frames.open(7, {"streamtype": "data", **about}), data(7, b"second", finished=True))
    async with asyncio.timeout(10):
        assert await client.ended(7) == b"second"
    await client.leave()


async def test_a_refusal_is_on_the_error_stream(ports: Ports) -> None:
    client = await ports.client()
    stream = await client.pair(1, "0")
    told = (await client.ended(stream - 2)).decode()
    assert told.startswith(f"error forwarding port 1 to pod {POD}, uid : ")
    assert "not allowed by this box's [[allow]] rules" in told
    await client.until(lambda seen: any((frame.kind, frame.stream_id) == (RST_STREAM, stream) for frame in seen))
    await client.leave()


async def test_what_is_not_allowed_any_more_ends_and_the_other_connections_of_the_client_go_on(ports: Ports) -> None:
    kept, gone = await ports.serve(echo), await ports.serve(wait_for_the_end)
    client = await ports.client()
    staying, ending = await client.pair(kept, "0"), await client.pair(gone, "1")
    await client.send(data(staying, b"one"), data(ending, b"two"))
    await client.until(lambda seen: {b"one", b"ready"} <= {frame.content for frame in seen})
    assert ports.forbid(gone) == 1
    async with asyncio.timeout(1):
        told = (await client.ended(ending - 2)).decode()
        text = f"localhost:{gone} is not allowed any more at this end"
        assert told == f"error forwarding port {gone} to pod {POD}, uid : {text}"
        await client.until(lambda seen: any((frame.kind, frame.stream_id) == (RST_STREAM, ending) for frame in seen))
    assert not any(frame.kind == 0 and frame.stream_id == ending and frame.finished for frame in client.seen)
    await eventually(lambda: ends == ["ConnectionResetError"])  # never what looks like a proper end
    (line,) = ports.box.records.of("end")
    assert (line["reason"], line["text"], line["bytes_to_agent"]) == ("not_allowed", text, 3)
    await client.send(data(staying, b"three"))
    await client.until(lambda seen: any(frame.content == b"three" for frame in seen))
    assert ports.apply(kubelet=False) == 1  # nor does what is forwarded outlive the kubelet
    await client.ended(staying - 2)
    await client.leave()


ends: list[str] = []


async def wait_for_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    ends.clear()
    await reader.read(65536)
    writer.write(b"ready")
    try:
        ends.append((await reader.read()).decode())
    except ConnectionError as error:
        ends.append(type(error).__name__)
    writer.close()


async def test_a_reset_target_is_no_clean_end(ports: Ports) -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER
        writer.transport.abort()

    port = await ports.serve(reset)
    client = await ports.client()
    stream = await client.pair(port, "0")
    await client.send(data(stream, b"x"))
    assert b"reset" in await client.ended(stream - 2)
    assert not any(frame.kind == 0 and frame.stream_id == stream and frame.finished for frame in client.seen)
    await client.leave()


async def test_a_client_that_leaves_takes_its_connections_along(ports: Ports) -> None:
    ended = asyncio.Event()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read()
        ended.set()
        writer.close()

    port = await ports.serve(wait)
    client = await ports.client()
    stream = await client.pair(port, "0")
    await client.send(data(stream, b"x"))
    await client.until(lambda seen: len(seen) == 2)
    await client.leave()
    async with asyncio.timeout(10):
        await ended.wait()


async def test_a_target_that_reads_nothing_holds_a_bounded_part(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client is stopped; it is not the box that keeps what the target does not take."""
    monkeypatch.setattr(port_forward, "INPUT_BYTES", 4096)
    stop = asyncio.Event()

    async def stalled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await stop.wait()
        writer.transport.abort()

    port = await ports.serve(stalled)
    client = await ports.client()
    stream = await client.pair(port, "0")
    sent = 0

    async def send() -> None:
        nonlocal sent
        while True:
            await client.send(data(stream, bytes(65536)))
            sent += 65536

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(send(), 0.5)  # noqa: TID251 - nothing is lost
    assert sent < 32 * 1024 * 1024  # the kernel's buffers on loopback, ours are KiB
    stop.set()
    await client.leave()


async def test_a_ping_is_answered(ports: Ports) -> None:
    client = await ports.client()
    await client.send(control(PING, struct.pack(">I", 1)))
    await client.until(lambda seen: any((frame.kind, frame.stream_id) == (PING, 1) for frame in seen))
    await client.leave()


@pytest.mark.parametrize("headers", [{"port": "22"}, {"streamtype": "data", "port": "0"}, {"streamtype": "x"}])
async def test_streams_that_make_no_sense(ports: Ports, headers: dict[str, str]) -> None:
    client = await ports.client()
    await client.send(client.frames.open(1, headers))
    await client.until(lambda seen: [(frame.kind, frame.stream_id) for frame in seen] == [(RST_STREAM, 1)])
    await client.leave()


async def test_pairs_are_counted(ports: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_forward, "MAX_PAIRS", 2)
    port = await ports.serve(echo)
    client = await ports.client()
    streams = [await client.pair(port, str(number)) for number in range(3)]
    await client.until(lambda seen: any(frame.stream_id == streams[2] for frame in seen))
    assert {frame.stream_id for frame in client.seen if frame.kind == RST_STREAM} == {streams[2] - 2, streams[2]}
    await client.send(data(streams[0], b"still there"))
    await client.until(lambda seen: any(frame.content == b"still there" for frame in seen))
    await client.leave()


async def test_rubbish_ends_the_connection_and_nothing_else(ports: Ports) -> None:
    client = await ports.client()
    await client.send(b"\x80\x02rubbish!")
    with pytest.raises(StreamError, match="version 2 of SPDY"):
        await client.until(lambda seen: False)
    assert (await ports.box.get("/healthz"))[0] == 200


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"upgrade": "SPDY/3.1", "x-stream-protocol-version": "v9"}, 403, "portforward.k8s.io"),
        ({"upgrade": "h2c"}, 400, "needs an upgrade"),
        ({"upgrade": "websocket"}, 400, "Sec-WebSocket-Key"),
    ],
)
async def test_upgrades_that_are_not_spoken(ports: Ports, changes: dict[str, str], status: int, says: str) -> None:
    http = ClientConnection(ports.box.connect())
    headers = [(name, changes.get(name, value)) for name, value in HEADERS]
    response = await http.request("POST", f"/portForward/default/{POD}", [*headers, ("content-length", "0")])
    assert response.status == status
    assert says in (await http.read_body(65536)).decode()
