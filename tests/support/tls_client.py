"""A TLS peer, above all a client, that can do what asyncio's cannot: end one direction, or leave without a word."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from contextlib import suppress


class TlsClient:
    """On a connected non-blocking socket."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, server_side: bool = False) -> None:
        self.sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        host = None if server_side else "127.0.0.1"
        self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side, server_hostname=host)

    async def handshake(self) -> None:
        await self._step(self.tls.do_handshake)

    async def send(self, data: bytes) -> None:
        for start in range(0, len(data), 65536):
            piece = data[start : start + 65536]
            await self._step(lambda piece=piece: self.tls.write(piece))  # type: ignore[misc]

    async def receive(self) -> bytes:
        """Some bytes; none at the end that the server announced."""
        try:
            return await self._step(lambda: self.tls.read(65536))
        except ssl.SSLZeroReturnError:
            return b""

    async def receive_all(self) -> bytes:
        received = bytearray()
        while data := await self.receive():
            received += data
        return bytes(received)

    async def finish(self) -> None:
        """Send close_notify."""
        with suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        await self._flush()

    def cut(self, *, reset: bool = False) -> None:
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    async def _step(self, call: Callable[[], object]) -> bytes:
        while True:
            try:
                result = call()
            except ssl.SSLWantReadError:
                await self._flush()
            else:
                await self._flush()
                return result if isinstance(result, bytes) else b""
            data = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

    async def _flush(self) -> None:
        if self._outgoing.pending:
            await asyncio.get_running_loop().sock_sendall(self.sock, self._outgoing.read())
