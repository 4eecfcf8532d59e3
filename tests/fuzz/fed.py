"""Connections whose other end is an input: all of it comes at once or in pieces, then its end."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from typing import Any, cast

from tunnel.aio.sockets.conn import NO_CERTIFICATE, Conn, TlsPeer
from tunnel.core.wire.errors import Code, StreamError

GIVE_UP_S = 5.0
"""Seconds after which a server that has all of its input must be done with it."""
_HEAD = re.compile(rb"\A(?:\r?\n)*[!-~][^\n]*\n(?:[^\n]+\n)*?\r?\n")
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")
_BODILESS = re.compile(rb"\s*HEAD ")
"""A request whose answer has a head and nothing else."""


class _Transport:
    def get_extra_info(self, name: str) -> object:
        return _Inet() if name == "socket" else None

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        """Nobody looks at it."""


class _Inet:
    family = socket.AF_INET


class Fed:
    """A connection of a peer who says what the input says. It is a Duplex, and as much of a Conn as servers use."""

    peer = "192.0.2.1:5000"
    unix_peer = None
    error: StreamError | None = None

    def __init__(self, data: bytes, tls_peer: TlsPeer = NO_CERTIFICATE) -> None:
        self._data = data
        self.written = bytearray()
        self.was_reset = False
        self.settled = False
        self.tls_peer = tls_peer
        self.transport = _Transport()

    async def read(self, max_bytes: int = 65536) -> bytes:
        await asyncio.sleep(0)
        data, self._data = self._data[:max_bytes], self._data[max_bytes:]
        return data

    def unread(self, data: bytes) -> None:
        self._data = data + self._data

    async def write(self, data: bytes | memoryview) -> None:
        self.written += data

    async def write_eof(self) -> None:
        """The peer never minds."""

    async def aclose(self) -> None:
        """Nothing is held."""

    def close(self) -> None:
        """Nothing is held."""

    def reset(self, code: Code = Code.CANCELLED, text: str = "") -> None:
        self.was_reset = True

    def known(self) -> None:
        """Nobody counts strangers here."""

    async def lost(self) -> None:
        """It has sent its end, and is gone."""

    @property
    def closed(self) -> asyncio.Future[None]:
        """It stays to hear the answer."""
        return asyncio.get_running_loop().create_future()

    @property
    def conn(self) -> Conn:
        return cast("Conn", self)


class Loop:
    """One event loop for all inputs of a target."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Callable[[], Awaitable[Any]]) -> Any:
        """Runs some work to its end.

        Raises:
            TimeoutError: it does not end.
        """

        async def bounded() -> Any:
            async with asyncio.timeout(GIVE_UP_S):
                return await work()

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(bounded())


def check_answer(data: bytes, fed: Fed) -> None:
    """Checks what an HTTP server answered to an input: something, where it has a whole head, and no fault of ours."""
    if not fed.written:
        assert _HEAD.match(data) is None or fed.was_reset, "a request without an answer"
        return
    first = _STATUS.match(fed.written)
    assert first is not None, f"no answer of HTTP: {bytes(fed.written[:80])!r}"
    assert first[1] != b"500", f"an answer of our own fault: {bytes(fed.written)!r}"
    if first[1] == b"400" and _BODILESS.match(data) is None:
        assert b"LL" in fed.written, f"a refusal without a code: {bytes(fed.written)!r}"
