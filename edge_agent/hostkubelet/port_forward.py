"""The kubelet's side of `kubectl port-forward`: pairs of SPDY streams, each a TCP connection to a port of this box.

kubectl 1.31 and newer frame SPDY inside a WebSocket, older ones speak it on the bare connection; what is inside is the
same. A pair is a data stream and an error stream with the same request id. Which ports may be dialled is not decided
here: `Dial` refuses.

SPDY as Kubernetes speaks it has no windows: a connection whose target takes nothing holds up the others of the same
kubectl once INPUT_BYTES wait for it, as it does with every kubelet. Memory is bounded by that and by MAX_PAIRS.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from edge_agent.hostkubelet.audit import RequestRecord, audited
from edge_agent.hostkubelet.input_queue import InputQueue
from edge_agent.hostkubelet.status import KubeletError
from tunnel.aio.http.http1 import Request
from tunnel.aio.http.websocket import WebSocket, accept_headers, key_of
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.duplex import Duplex
from tunnel.core.wire.errors import Code, OpenRefused, StreamError
from tunnel.core.wire.faults import API_REQUEST_INVALID
from tunnel.core.wire.principal import Principal
from tunnel.core.wire.target import TcpTarget
from tunnel.kubeapi.spdy import (
    DataReceived,
    GoneAway,
    Pinged,
    SpdyEvent,
    SpdyReceiver,
    SpdySender,
    Status,
    StreamOpened,
    StreamReset,
)

PROTOCOL = "portforward.k8s.io"
"""The protocol that both sides speak over SPDY; there is no other version of it."""
TUNNELLED_PROTOCOL = f"SPDY/3.1+{PROTOCOL}"
"""The WebSocket protocol of kubectl 1.31 and newer: its messages are the bytes of a SPDY connection."""
SPDY = "SPDY/3.1"
MAX_PAIRS = 128
"""The most connections at once through one kubectl: each may hold INPUT_BYTES, and a chunk of each direction, here."""
INPUT_BYTES = 32 * 1024
"""The bytes that may wait for a target before the client is stopped."""
CHUNK_BYTES = 32 * 1024
"""The most bytes of a data frame that we send: what Go's io.Copy reads at a time."""
DIAL_S = 10.0
LOCALHOST = "localhost"

Dial = Callable[[TcpTarget, float, Principal], AbstractAsyncContextManager[Conn]]
"""A function that connects to a target for somebody, within so many seconds. It is a context manager, whose block is
cancelled when that is not allowed any more. It raises OpenRefused (a StreamError) when it is not allowed, or not any
more, or fails."""


class Transport(Protocol):
    """The connection that the SPDY frames run over."""

    def chunks(self) -> AsyncIterator[bytes]:
        """Yields what the client sends, to its end.

        Raises:
            StreamError: the connection was reset.
        """
        ...

    async def send(self, data: bytes) -> None:
        """Sends bytes; only one caller at a time may.

        Raises:
            StreamError: the client is gone.
        """
        ...

    async def keep_alive(self) -> None:
        """Does what keeps the connection up; runs until it is cancelled.

        Raises:
            StreamError: the client is gone.
        """
        ...


class BareTransport:
    """The transport of older clients: SPDY on the upgraded connection itself."""

    def __init__(self, duplex: Duplex, early: bytes) -> None:
        self._duplex = duplex
        self._early = early

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields what the client sends: see `Transport`."""
        data = self._early or await self._duplex.read()
        while data:
            yield data
            data = await self._duplex.read()

    async def send(self, data: bytes) -> None:
        """Sends bytes: see `Transport`."""
        await self._duplex.write(data)

    async def keep_alive(self) -> None:
        """Does nothing, since the client sends pings of SPDY."""


class WebSocketTransport:
    """The transport of newer clients: SPDY in binary messages of a WebSocket, whose borders mean nothing."""

    def __init__(self, duplex: Duplex, early: bytes) -> None:
        self._websocket = WebSocket(duplex, early)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yields what the client sends: see `Transport`."""
        async for part in self._websocket.parts():
            if part.data:
                yield part.data

    async def send(self, data: bytes) -> None:
        """Sends bytes: see `Transport`."""
        await self._websocket.send_bytes(data)

    async def keep_alive(self) -> None:
        """Answers pings and sends some: see `Transport`."""
        await self._websocket.keep_alive()


def negotiate(request: Request) -> tuple[list[tuple[str, str]], type[BareTransport | WebSocketTransport]]:
    """Returns the headers of the 101 that answers an upgrade request, and the transport to carry SPDY over.

    Raises:
        KubeletError: the request offers nothing that is spoken here.
    """
    upgrade = (request.upgrade or "").lower()
    if upgrade == SPDY.lower():
        if PROTOCOL not in request.headers.tokens("x-stream-protocol-version"):
            raise KubeletError(
                403, f"port-forward speaks {PROTOCOL} over SPDY and no other protocol", API_REQUEST_INVALID
            )
        headers = [("upgrade", SPDY), ("connection", "Upgrade"), ("x-stream-protocol-version", PROTOCOL)]
        return headers, BareTransport
    if upgrade != "websocket":
        raise KubeletError(400, f"port-forward needs an upgrade to {SPDY}, or to a WebSocket of {TUNNELLED_PROTOCOL}")
    key = key_of(request)
    if key is None:
        raise KubeletError(400, "the WebSocket upgrade must have a Sec-WebSocket-Key and Sec-WebSocket-Version 13")
    # Names of protocols are written by clients as they are here; tokens are compared in lower case.
    if TUNNELLED_PROTOCOL.lower() not in [one.lower() for one in request.headers.tokens("sec-websocket-protocol")]:
        raise KubeletError(400, f"port-forward speaks {TUNNELLED_PROTOCOL} over a WebSocket and no other protocol")
    return accept_headers(key, TUNNELLED_PROTOCOL), WebSocketTransport


@dataclass(slots=True)
class _Pair:
    """One connection of the client: its two streams, as far as they were opened."""

    request: str
    port: int
    data: int = 0
    """The id of the data stream; 0: not opened yet."""
    error: int = 0
    input: InputQueue = field(default_factory=lambda: InputQueue(INPUT_BYTES))
    task: asyncio.Task[None] | None = None
    target_ended: bool = False
    """Whether the target sends no more: what the client sent before it left is still delivered."""


class PortForward:
    """The forwarded connections of one kubectl."""

    def __init__(self, transport: Transport, dial: Dial, record: Callable[[str], RequestRecord], *, pod: str) -> None:
        """Prepares the forwarding; nothing is read before `run`.

        Args:
            transport: the connection to the client.
            dial: connects to a port of this box, or refuses, at once or once it is not allowed any more.
            record: makes the audit record of a connection to a target.
            pod: name of the pod, for errors.
        """
        self._transport = transport
        self._dial = dial
        self._record = record
        self._pod = pod
        self._receiver = SpdyReceiver()
        self._sender = SpdySender()
        self._sending = asyncio.Lock()
        self._pairs: dict[str, _Pair] = {}
        self._streams: dict[int, _Pair] = {}
        self._tasks = TaskOwner("port-forward")

    async def run(self) -> None:
        """Serves the client until it leaves; all its connections end with it.

        Raises:
            StreamError: the connection was reset.
            SpdyError: the client broke the protocol.
        """
        keep_alive = self._tasks.spawn("keep alive", self._keep_alive())
        try:
            async for data in self._transport.chunks():
                for event in self._receiver.receive(data):
                    if isinstance(event, GoneAway):
                        return
                    await self._take(event)
        finally:
            keep_alive.cancel()
            await self._tasks.aclose()

    # Internal

    async def _keep_alive(self) -> None:
        """Keeps the client's connection up until it is cancelled, or the client is gone.

        What is left for the targets is thrown away then: the reader may wait for one of them that takes nothing, and
        would never read that the client is gone.
        """
        try:
            await self._transport.keep_alive()
        except StreamError:
            for pair in [*self._pairs.values()]:
                await pair.input.discard()

    async def _take(self, event: SpdyEvent) -> None:
        match event:
            case StreamOpened():
                await self._opened(event)
            case DataReceived(stream_id, data, finished):
                pair = self._streams.get(stream_id)
                if pair is not None and stream_id == pair.data:
                    if data:
                        await pair.input.put(data)
                    if finished:
                        await pair.input.end()
            case StreamReset(stream_id):
                pair = self._streams.get(stream_id)
                if pair is not None and stream_id == pair.data:
                    await self._given_up(pair)
            case Pinged(number) if number % 2:  # an even one would be the answer to a ping of ours
                await self._send(self._sender.pong(number))

    async def _opened(self, event: StreamOpened) -> None:
        kind, port = event.headers.get("streamtype"), _port(event.headers.get("port", ""))
        if kind not in ("data", "error") or port is None:
            await self._send(self._sender.reset(event.stream_id, Status.PROTOCOL_ERROR))
            return
        # Clients of old send no id: their pairs are numbered one after the other (kubelet, cri/streaming/portforward).
        request = event.headers.get("requestid") or str(event.stream_id - (2 if kind == "data" else 0))
        pair = self._pairs.get(request)
        if pair is None:
            if len(self._pairs) >= MAX_PAIRS:
                await self._send(self._sender.reset(event.stream_id, Status.REFUSED_STREAM))
                return
            pair = self._pairs[request] = _Pair(request, port)
        if getattr(pair, kind):
            await self._send(self._sender.reset(event.stream_id, Status.PROTOCOL_ERROR))
            return
        setattr(pair, kind, event.stream_id)
        self._streams[event.stream_id] = pair
        await self._send(self._sender.reply(event.stream_id))
        if event.finished and kind == "data":
            await pair.input.end()
        if pair.data and pair.error:
            pair.task = self._tasks.spawn(f"port {pair.port}", self._serve(pair))

    async def _given_up(self, pair: _Pair) -> None:
        if pair.target_ended:  # kubectl resets what it has no more use for
            await pair.input.end()
            return
        if pair.task is not None:
            pair.task.cancel()
        self._forget(pair)

    async def _serve(self, pair: _Pair) -> None:
        """Connects to the pair's target, carries bytes both ways, and tells client and record how it went."""
        record = self._record(str(TcpTarget(LOCALHOST, pair.port)))
        try:
            with audited(record):
                async with self._dial(TcpTarget(LOCALHOST, pair.port), DIAL_S, record.principal) as conn:
                    record.begin()
                    await self._carry(pair, conn, record)
        except StreamError as error:
            await self._fail(pair, error)
        except KubeletError as error:  # it cannot be recorded
            await self._fail(pair, OpenRefused(error.text, Code.LIMIT_EXCEEDED))
        finally:
            self._forget(pair)
            await pair.input.discard()

    async def _carry(self, pair: _Pair, conn: Conn, record: RequestRecord) -> None:
        try:
            feeding = self._tasks.spawn("input", self._feed(pair, conn, record))
            try:
                while data := await conn.read(CHUNK_BYTES):
                    await self._send(self._sender.data(pair.data, data))
                    record.bytes_out += len(data)
                pair.target_ended = True
                # kubectl closes its side when the target has ended, and waits for the end of the error stream.
                await self._send(
                    self._sender.data(pair.data, b"", finished=True), self._sender.data(pair.error, b"", finished=True)
                )
                await feeding
            finally:
                feeding.cancel()
        except BaseException:
            conn.reset()
            raise
        await conn.aclose()

    async def _feed(self, pair: _Pair, conn: Conn, record: RequestRecord) -> None:
        try:
            while data := await pair.input.get():
                await conn.write(data)
                record.bytes_in += len(data)
            await conn.write_eof()
        except StreamError:
            await pair.input.discard()  # the reader of the same connection is told why

    async def _fail(self, pair: _Pair, error: StreamError) -> None:
        text = f"error forwarding port {pair.port} to pod {self._pod}, uid : {error}"
        try:
            await self._send(
                self._sender.data(pair.error, text.encode(), finished=True),
                self._sender.reset(pair.data, Status.INTERNAL_ERROR),
            )
        except StreamError:
            return  # the client is gone

    def _forget(self, pair: _Pair) -> None:
        for stream_id in (pair.data, pair.error):
            self._streams.pop(stream_id, None)
        if self._pairs.get(pair.request) is pair:  # the number may be another one's by now
            del self._pairs[pair.request]

    async def _send(self, *frames: bytes) -> None:
        async with self._sending:
            await self._transport.send(b"".join(frames))


def _port(text: str) -> int | None:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        return None
    port = int(text)
    return port if 0 < port < 65536 else None
