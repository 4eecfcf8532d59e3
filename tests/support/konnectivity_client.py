"""What kube-apiserver does in GRPC mode, over HTTP/2 as Go's gRPC speaks it: its headers, its window, its pings."""

from __future__ import annotations

import asyncio
import struct
import urllib.parse
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import StreamClosedError

from protos.konnectivity_pb2 import (
    CloseDial,
    CloseRequest,
    CloseResponse,
    Data,
    DialRequest,
    DialResponse,
    Packet,
    PacketType,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
EMPTY_SETTINGS = bytes.fromhex("000000040000000000")
BDP_PING = bytes.fromhex("02041010090e0707")
FRAME_BYTES = 16384

DIAL_EXAMPLE = bytes.fromhex("121f0a03746370120e31302e312e322e333a313032353018d393da8e9eec8e8b41")
"""A dial of tcp 10.1.2.3:10250 as it was captured; zero values are left out, the type of a dial among them."""


def request_headers(socket: Path, /, **changed: str) -> list[tuple[str, str]]:
    """As captured from kube-apiserver; `changed` by name, with `_` for `-` and for the colon."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/ProxyService/Proxy",
        ":authority": urllib.parse.quote(str(socket), safe=""),
        "content-type": "application/grpc",
        "user-agent": "grpc-go/1.79.3",
        "te": "trailers",
    }
    for name, value in changed.items():
        headers[name.replace("_", "-") if f":{name}" not in headers else f":{name}"] = value
    return [*headers.items()]


def framed(message: bytes, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, len(message)) + message


class ProxyCall:
    """One call: one tunnel."""

    def __init__(self, client: ProxyClient, stream_id: int) -> None:
        self.id = stream_id
        self.connect_id = 0
        self.headers: dict[str, str] = {}
        self.trailers: dict[str, str] | None = None
        self.reset: int | None = None
        self.over = False
        self.reading = True
        """Whether the client's reader takes what comes; while not, the window is not opened again."""
        self._client = client
        self._buffer = bytearray()
        self.packets: deque[Packet] = deque()
        """What came and was not received yet."""
        self.bytes = 0
        """How much came."""
        self._news = asyncio.Event()
        self._window_news = asyncio.Event()
        self._untaken = 0

    # Requests

    async def write(self, data: bytes) -> None:
        """Send bytes of the call as its window allows."""
        h2 = self._client.h2
        offset = 0
        while offset < len(data):
            room = min(h2.local_flow_control_window(self.id), FRAME_BYTES)
            if room <= 0:
                self._window_news.clear()
                await self._window_news.wait()
                assert not self.over, "the call ended while it wrote"
                continue
            h2.send_data(self.id, data[offset : offset + room])
            offset += room
            await self._client.flush()

    async def send(self, packet: Packet) -> None:
        await self.write(framed(packet.SerializeToString()))

    async def ask(self, address: str, *, random: int = 4242, protocol: str = "tcp") -> None:
        await self.send(Packet(dial_request=DialRequest(protocol=protocol, address=address, random=random)))

    async def dial(self, address: str, random: int = 4242) -> DialResponse:
        """Dial, and wait for the answer."""
        await self.ask(address, random=random)
        packet = await self.receive()
        assert packet.type == PacketType.DIAL_RSP
        self.connect_id = packet.dial_response.connect_id
        return packet.dial_response

    async def give_up(self, random: int = 4242) -> None:
        await self.send(Packet(type=PacketType.DIAL_CLS, close_dial=CloseDial(random=random)))

    async def send_data(self, data: bytes, connect_id: int | None = None) -> None:
        number = self.connect_id if connect_id is None else connect_id
        await self.send(Packet(type=PacketType.DATA, data=Data(connect_id=number, data=data)))

    async def ask_to_close(self, connect_id: int | None = None) -> None:
        number = self.connect_id if connect_id is None else connect_id
        await self.send(Packet(type=PacketType.CLOSE_REQ, close_request=CloseRequest(connect_id=number)))

    async def drop(self) -> None:
        """Reset the call, as Go does when its context is cancelled."""
        self._client.h2.reset_stream(self.id, 8)
        self.over = True
        await self._client.flush()

    async def half_close(self) -> None:
        self._client.h2.end_stream(self.id)
        await self._client.flush()

    # Responses

    async def receive(self) -> Packet:
        """The next packet.

        Raises:
            EOFError: the call is over.
        """
        while not self.packets:
            if self.over:
                raise EOFError(f"trailers {self.trailers}, reset {self.reset}")
            self._news.clear()
            await self._news.wait()
        return self.packets.popleft()

    async def receive_data(self, count: int) -> bytes:
        """So many bytes of DATA."""
        received = bytearray()
        while len(received) < count:
            packet = await self.receive()
            assert packet.type == PacketType.DATA, packet
            assert packet.data.connect_id == self.connect_id
            received += packet.data.data
        return bytes(received)

    async def receive_until_closed(self) -> tuple[bytes, CloseResponse]:
        """All DATA, and the CLOSE_RSP behind it."""
        received = bytearray()
        while (packet := await self.receive()).type == PacketType.DATA:
            received += packet.data.data
        assert packet.type == PacketType.CLOSE_RSP
        return bytes(received), packet.close_response

    async def status(self) -> tuple[int, str]:
        """What the call ended with, behind all packets.

        Raises:
            AssertionError: a packet was left.
        """
        try:
            raise AssertionError(f"a packet was left: {await self.receive()}")
        except EOFError:
            end = self.headers if self.trailers is None else self.trailers
            assert "grpc-status" in end, f"{end}, reset {self.reset}"
            return int(end["grpc-status"]), end.get("grpc-message", "")

    async def take(self) -> None:
        """Read again what was left in the window."""
        self.reading = True
        self._give_credit()
        await self._client.flush()

    # For the client

    def on_data(self, data: bytes, counted: int) -> None:
        self._untaken += counted
        self.bytes += len(data)
        self._buffer += data
        while len(self._buffer) >= 5:
            compressed, length = struct.unpack_from(">BI", self._buffer)
            assert compressed == 0
            if len(self._buffer) < 5 + length:
                break
            self.packets.append(Packet.FromString(bytes(self._buffer[5 : 5 + length])))
            del self._buffer[: 5 + length]
        if self.reading:
            self._give_credit()
        self._news.set()

    def on_window(self) -> None:
        self._window_news.set()

    def end(self) -> None:
        self.over = True
        self._news.set()
        self._window_news.set()

    def _give_credit(self) -> None:
        count, self._untaken = self._untaken, 0
        if count:
            with suppress(StreamClosedError):  # its end may have come in the same breath
                self._client.h2.increment_flow_control_window(count, self.id)


class ProxyClient:
    """One connection, ready once the server's SETTINGS came."""

    def __init__(self, path: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.ready = asyncio.Event()
        self.gone = asyncio.Event()
        """The server closed the connection."""
        self.goaway: int | None = None
        self.pings_answered = 0
        self._path = path
        self._reader = reader
        self._writer = writer
        self._calls: dict[int, ProxyCall] = {}

    async def hello(self) -> None:
        """The preface and SETTINGS without a setting, as Go's client sends them; wait for the server's."""
        self.h2.initiate_connection()
        self.h2.data_to_send()  # the library would name all its settings
        await self.write(PREFACE + EMPTY_SETTINGS)
        await self.ready.wait()

    async def call(self, **changed: str) -> ProxyCall:
        """Begin a call; `changed` headers as in `request_headers`."""
        call = ProxyCall(self, self.h2.get_next_available_stream_id())
        self._calls[call.id] = call
        self.h2.send_headers(call.id, request_headers(self._path, **changed))
        await self.flush()
        return call

    async def tunnel(self, address: str) -> ProxyCall:
        """A call with an open tunnel."""
        call = await self.call()
        answer = await call.dial(address)
        assert not answer.error, answer.error
        assert answer.connect_id
        return call

    async def write(self, data: bytes) -> None:
        """Send bytes below HTTP/2."""
        self._writer.write(data)
        await self._writer.drain()

    async def flush(self) -> None:
        await self.write(self.h2.data_to_send())

    async def run(self) -> None:
        """Handle what comes until the connection ends."""
        try:
            while data := await self._reader.read(65536):
                got_data = False
                for event in self.h2.receive_data(data):
                    got_data |= isinstance(event, events.DataReceived)
                    self._handle(event)
                if got_data and self.goaway is None:
                    self.h2.ping(BDP_PING)
                await self.flush()
        except ConnectionError:
            pass
        finally:
            self.gone.set()
            for call in self._calls.values():
                call.end()

    def _handle(self, event: events.Event) -> None:
        match event:
            case events.RemoteSettingsChanged():
                self.ready.set()
                self._windows_opened()
            case events.PingAckReceived():
                self.pings_answered += 1
            case events.DataReceived():
                # The connection's window is never what holds a call up.
                if event.flow_controlled_length:
                    self.h2.increment_flow_control_window(event.flow_controlled_length)
                self._calls[event.stream_id].on_data(event.data, event.flow_controlled_length)
            case events.ResponseReceived():
                self._calls[event.stream_id].headers = dict(event.headers)  # type: ignore[arg-type]
            case events.TrailersReceived():
                self._calls[event.stream_id].trailers = dict(event.headers)  # type: ignore[arg-type]
            case events.StreamEnded():
                self._calls[event.stream_id].end()
            case events.StreamReset():
                self._calls[event.stream_id].reset = event.error_code
                self._calls[event.stream_id].end()
            case events.WindowUpdated():
                self._windows_opened()
            case events.ConnectionTerminated():
                self.goaway = int(event.error_code or 0)

    def _windows_opened(self) -> None:
        for call in self._calls.values():
            call.on_window()


@asynccontextmanager
async def connected(path: Path) -> AsyncIterator[ProxyClient]:
    """A connection, closed at the end."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    client = ProxyClient(path, reader, writer)
    running = asyncio.get_running_loop().create_task(client.run(), name="konnectivity client")
    try:
        await client.hello()
        yield client
    finally:
        writer.close()
        await running
