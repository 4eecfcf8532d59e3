"""A client of HTTP/2 over TLS that does as it is told: many requests at once, pings answered or not."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from h2 import events
from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from hpack import Encoder, HeaderTuple

from tests.support.waits import scaled_s


class PlainEncoder(Encoder):
    """Does not pack what it says: the library takes half a minute to pack a megabyte."""

    def encode(self, headers: Iterable[HeaderTuple], huffman: bool = True) -> bytes:  # type: ignore[override]
        return super().encode(headers, huffman=False)


@dataclass
class Answer:
    """What came on one stream so far."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(self.headers[":status"])


class Http2Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.encoder = PlainEncoder()
        self.answers: dict[int, Answer] = {}
        self.pings = 0
        """How often the server asked for life."""
        self.acknowledged = 0
        """Of our own pings."""
        self.goaway: int | None = None
        self.closed = False
        self.answering = True
        """Whether anything is read, and so answered."""
        self.crediting = True
        """Whether what is read opens the windows again."""
        self._reader = reader
        self.writer = writer
        self._news = asyncio.Condition()

    async def ask(
        self,
        path: str,
        *headers: tuple[str, str],
        method: str = "GET",
        body: bytes | None = None,
        end: bool = True,
        flush: bool = True,
    ) -> Answer:
        """Send a request, without waiting for its answer; with `flush` False, along with the next."""
        number = self.h2.get_next_available_stream_id()
        answer = self.answers[number] = Answer()
        head = [(":method", method), (":scheme", "https"), (":authority", "fleet"), (":path", path), *headers]
        self.h2.send_headers(number, head, end_stream=end and body is None)
        if body is not None:
            self.h2.send_data(number, body, end_stream=end)
        if flush:
            await self.flush()
        return answer

    async def get(self, path: str, *headers: tuple[str, str]) -> Answer:
        """Ask, and wait for the end of the answer."""
        answer = await self.ask(path, *headers)
        await self.until(lambda: answer.ended or answer.reset is not None)
        return answer

    async def until(self, condition: object) -> None:
        """Wait for something that arrives."""
        async with asyncio.timeout(scaled_s(10)), self._news:
            await self._news.wait_for(condition)  # type: ignore[arg-type]

    def number(self, answer: Answer) -> int:
        return next(number for number, each in self.answers.items() if each is answer)

    async def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())
        await self.writer.drain()

    async def run(self) -> None:
        """Read until the end."""
        try:
            while data := await self._reader.read(65536):
                for event in self.h2.receive_data(data):
                    self._handle(event)
                if self.answering:
                    await self.flush()
                async with self._news:
                    self._news.notify_all()
        except (ConnectionError, ssl.SSLError):
            pass
        self.closed = True
        async with self._news:
            self._news.notify_all()

    def _handle(self, event: events.Event) -> None:
        match event:
            case events.ResponseReceived():
                self.answers[event.stream_id].headers = {str(name): str(value) for name, value in event.headers}
            case events.DataReceived():
                self.answers[event.stream_id].body += event.data
                if self.crediting and event.flow_controlled_length:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            case events.StreamEnded():
                self.answers[event.stream_id].ended = True
            case events.StreamReset():
                self.answers[event.stream_id].reset = int(event.error_code)
            case events.PingReceived():
                self.pings += 1
            case events.PingAckReceived():
                self.acknowledged += 1
            case events.ConnectionTerminated():
                self.goaway = event.error_code
                self.h2.state_machine.state = ConnectionState.CLIENT_OPEN  # for the library it would be the end
            case _:
                pass


@asynccontextmanager
async def http2_client(port: int, context: ssl.SSLContext) -> AsyncIterator[Http2Client]:
    """Connect to 127.0.0.1; `context` is made to offer h2."""
    context.set_alpn_protocols(["h2"])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
    client = Http2Client(reader, writer)
    client.h2.initiate_connection()
    await client.flush()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(client.run())
        try:
            yield client
        finally:
            writer.transport.abort()
            running.cancel()
