"""An HTTP/2 client that nobody could foretell, and the socket to it, both in memory and in virtual time.

It opens windows by bits, widens and narrows them under way, pads its data, pings, and reads when it likes; the socket
takes and brings bytes in pieces of any size. All of it is drawn from one seed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes, Settings

HIGH_BYTES, LOW_BYTES = 64 * 1024, 16
"""What the socket holds before it asks to stop writing, and what is left when it asks to go on: uvloop's."""
WINDOWS = (1000, 16_384, 65_535, 300_000, 1024 * 1024, 4 * 1024 * 1024)
PIECES = (1, 9, 13, 26, 1000, 16_384, 70_000, 1 << 30)
PADDINGS = (None, None, 0, 1, 200)


class MemorySocket(asyncio.Transport):
    """The server's end of the connection."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        """What the client has not read yet."""
        self.reading = False
        self.closed = False
        self.protocol: asyncio.Protocol | None = None
        self._full = False

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self.protocol = protocol

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert self.protocol is not None
        self.written += data
        if len(self.written) > HIGH_BYTES and not self._full:
            self._full = True
            self.protocol.pause_writing()

    def read_by_client(self, count: int) -> bytes:
        """What the client reads next, at most so much."""
        assert self.protocol is not None
        data = bytes(self.written[:count])
        del self.written[:count]
        if self._full and len(self.written) <= LOW_BYTES:
            self._full = False
            self.protocol.resume_writing()
        return data

    def get_write_buffer_size(self) -> int:
        return len(self.written)

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if not self.closed:
            assert self.protocol is not None
            self.closed = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)


@dataclass
class Request:
    """A stream as the client sees it."""

    to_send: bytes = b""
    """What it has yet to send."""
    received: bytearray = field(default_factory=bytearray)
    unread: int = 0
    """What came and was not credited yet."""


class ErraticClient:
    """Draw its steps with `step`, then `settle`: it reads all, credits all and sends all that it may."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.socket = MemorySocket()
        self.h2 = H2Connection(H2Configuration(client_side=True))
        self.requests: dict[int, Request] = {}
        self._outgoing = bytearray()
        self._unread = 0
        self._unsettled = True
        """Whether settings wait for their acknowledgement: the library takes the first that comes for the newest."""
        self._steps: list[Callable[[], None]] = [
            self._read, self._read, self._read, self._deliver, self._deliver, self._deliver, self._send, self._send,
            self._credit_some, self._credit_some, self._credit_connection, self._change_window, self._ping,
        ]  # fmt: skip
        first = {SettingCodes.INITIAL_WINDOW_SIZE: self.draw.choice(WINDOWS)}
        self.h2.local_settings = Settings(client=True, initial_values=first)
        self.h2.initiate_connection()

    def ask(self, headers: list[tuple[str, str]], to_send: bytes) -> Request:
        """Open a stream."""
        stream_id = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream_id, headers)
        request = self.requests[stream_id] = Request(to_send)
        return request

    async def step(self) -> None:
        """Do one thing, and maybe let the server have its turn or some time."""
        self.draw.choice(self._steps)()
        match self.draw.randrange(10):
            case 0:
                await asyncio.sleep(self.draw.choice((0.001, 0.01, 0.1)))
            case 1 | 2 | 3 | 4 | 5:
                await asyncio.sleep(0)

    async def settle(self, done: Callable[[], bool], patience_s: float = 60.0) -> bool:
        """Do all that a client in order does, until it is done, or nothing comes of it any more."""
        loop = asyncio.get_running_loop()
        until_s = loop.time() + patience_s
        while not done() and loop.time() < until_s and not self.socket.closed:
            for stream_id, request in self.requests.items():
                self._send_of(stream_id, request, 1 << 30)
                self._credit(stream_id, request, request.unread)
            self._credit_connection()
            self._move(1 << 30)
            self._take(1 << 30)
            await asyncio.sleep(0.001)
        return done()

    # Steps

    def _read(self) -> None:
        self._take(self.draw.choice(PIECES))

    def _deliver(self) -> None:
        self._move(self.draw.choice(PIECES))

    def _send(self) -> None:
        stream_id, request = self.draw.choice([*self.requests.items()])
        self._send_of(stream_id, request, self.draw.choice(PIECES))

    def _credit_some(self) -> None:
        stream_id, request = self.draw.choice([*self.requests.items()])
        self._credit(stream_id, request, min(request.unread, self.draw.choice(PIECES)))

    def _credit_connection(self) -> None:
        if self._unread:
            self.h2.increment_flow_control_window(self._unread)
            self._unread = 0

    def _change_window(self) -> None:
        if not self._unsettled and self.draw.random() < 0.3:
            self._unsettled = True
            self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: self.draw.choice(WINDOWS)})

    def _ping(self) -> None:
        self.h2.ping(b"02468ace")

    # Internal

    def _send_of(self, stream_id: int, request: Request, count: int) -> None:
        while count > 0 and request.to_send:
            padding = self.draw.choice(PADDINGS)
            room = min(self.h2.local_flow_control_window(stream_id), self.h2.max_outbound_frame_size, count)
            room -= 0 if padding is None else padding + 1
            if room <= 0:
                return
            data, request.to_send = request.to_send[:room], request.to_send[room:]
            self.h2.send_data(stream_id, data, pad_length=padding)
            count -= len(data)

    def _credit(self, stream_id: int, request: Request, count: int) -> None:
        if count:
            self.h2.increment_flow_control_window(count, stream_id)
            request.unread -= count

    def _move(self, count: int) -> None:
        """Bring the server what is on its way, if it reads."""
        self._outgoing += self.h2.data_to_send()
        if self.socket.reading and self._outgoing:
            assert self.socket.protocol is not None
            data = bytes(self._outgoing[:count])
            del self._outgoing[:count]
            self.socket.protocol.data_received(data)

    def _take(self, count: int) -> None:
        for event in self.h2.receive_data(self.socket.read_by_client(count)):
            if isinstance(event, events.DataReceived):
                request = self.requests[event.stream_id]
                request.received += event.data
                request.unread += event.flow_controlled_length
                self._unread += event.flow_controlled_length
            elif isinstance(event, events.SettingsAcknowledged):
                self._unsettled = False
