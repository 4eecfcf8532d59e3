"""Nothing gets stuck, whatever a client does with its windows and however bytes come in pieces: what was queued for it
arrives, and what it sent is taken, once it reads and lets itself be sent again.
"""

from __future__ import annotations

import random

import pytest

from tests.aio.http.erratic_client import ErraticClient
from tunnel.aio.http.http2_connection import Http2Connection
from tunnel.aio.http.http2_limits import Http2Limits
from tunnel.aio.http.http2_stream import Http2Stream

LIMITS = Http2Limits(
    max_streams=10,
    window_bytes=64 * 1024,
    head_bytes=16 * 1024,
    heads_bytes=1 << 20,
    first_s=1e6,
    idle_s=1e6,
    ping_s=None,
)
HEADERS = [(":method", "POST"), (":scheme", "https"), (":authority", "a"), (":path", "/")]
CONTENT = random.Random(1).randbytes(300_000)


class Handler:
    """Sends and takes as it likes; all of it in the end."""

    def __init__(self, stream: Http2Stream, draw: random.Random) -> None:
        self.received = bytearray()
        self.to_send = CONTENT
        self.generous = False
        """Whether it takes all at once."""
        self._stream = stream
        self._draw = draw
        self._untaken = 0
        stream.handler = self
        stream.respond([(b":status", b"200")])

    def act(self) -> None:
        """Send or take something."""
        if self._draw.random() < 0.5 or self.generous:
            self._send()
        if self._draw.random() < 0.5 or self.generous:
            self._take(self._untaken if self.generous else self._draw.randint(0, self._untaken))

    def data_received(self, data: bytes) -> None:
        self.received += data
        self._untaken += len(data)
        if self.generous or self._draw.random() < 0.3:
            self._take(self._untaken)

    def eof_received(self) -> None:
        raise AssertionError("the client does not finish")

    def sent(self) -> None:
        if self.generous or self._draw.random() < 0.7:
            self._send()

    def lost(self, text: str) -> None:
        raise AssertionError(text)

    def _send(self) -> None:
        size = self._draw.choice((1, 1000, 70_000))
        data, self.to_send = self.to_send[:size], self.to_send[size:]
        if data:
            self._stream.send(data)

    def _take(self, count: int) -> None:
        self._untaken -= count
        self._stream.taken(count)


@pytest.mark.looptime
@pytest.mark.parametrize("seed", range(40))
async def test_all_arrives_both_ways(seed: int) -> None:
    client = ErraticClient(seed)
    handlers: list[Handler] = []
    connection = Http2Connection(
        client.socket, "client", LIMITS, lambda stream: handlers.append(Handler(stream, client.draw))
    )
    connection.start(b"", at_eof=False)
    requests = [client.ask(HEADERS, CONTENT) for _ in range(3)]
    for _ in range(300):
        await client.step()
        for handler in handlers:
            handler.act()
    for handler in handlers:
        handler.generous = True
        handler.act()

    def received() -> list[bytearray]:
        return [*(handler.received for handler in handlers), *(request.received for request in requests)]

    assert await client.settle(lambda: received() == [CONTENT] * 6), [len(each) for each in received()]
