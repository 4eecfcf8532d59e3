"""Accepts local connections for front ends: TCP, TLS and unix sockets, each connection in a task of its own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog

from tunnel.aio.conn import Conn
from tunnel.aio.tasks import TaskOwner
from tunnel.core.errors import StreamError

_log = structlog.get_logger("tunnel.listener")

MAX_CONNECTIONS = 8192
"""Connections of one front end; with two descriptors a connection this stays within a limit of 20,000 files."""
TLS_HANDSHAKE_S = 10.0
UNIX_MODE = 0o660
BACKLOG = 1024

Handler = Callable[[Conn], Awaitable[None]]
"""Owns a connection; it is closed when the handler returns, and a StreamError that comes out is no fault."""


class ListenFailed(Exception):
    """A listener could not be opened; the text names it and says why."""


class Listener:
    """The listeners of one front end."""

    def __init__(self, name: str, handler: Handler) -> None:
        self._name = name
        self._handler = handler
        self._tasks = TaskOwner(name)
        self._servers: list[asyncio.Server] = []
        self._paths: list[Path] = []
        self.ports: list[int] = []
        """Bound TCP ports, in the order of the calls."""

    @property
    def connections(self) -> int:
        """Connections that are being served."""
        return len(self._tasks)

    async def listen_tcp(self, address: str, tls: ssl.SSLContext | None = None) -> None:
        """Listen on `host:port`; port 0 takes a free one.

        Raises:
            ListenFailed: the address cannot be bound.
        """
        host, _, port = address.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        try:
            server = await asyncio.get_running_loop().create_server(
                self._protocol,
                host or None,
                int(port),
                ssl=tls,
                ssl_handshake_timeout=TLS_HANDSHAKE_S if tls is not None else None,
                backlog=BACKLOG,
            )
        except OSError as error:
            raise ListenFailed(f"{self._name}: cannot listen on {address}: {_reason(error)}") from error
        self._servers.append(server)
        self.ports.append(server.sockets[0].getsockname()[1])

    async def listen_unix(self, path: Path) -> None:
        """Listen on a unix socket, mode 0660. A socket that nobody listens on any more is replaced.

        Raises:
            ListenFailed: the path is in use, or cannot be made.
        """
        try:
            sock = await asyncio.to_thread(_bind_unix, path)
            server = await asyncio.get_running_loop().create_unix_server(self._protocol, sock=sock, backlog=BACKLOG)
        except OSError as error:
            raise ListenFailed(f"{self._name}: cannot listen on {path}: {_reason(error)}") from error
        self._servers.append(server)
        self._paths.append(path)

    def close(self) -> None:
        """Accept no more connections; those that run go on."""
        for server in self._servers:
            server.close()
        for path in self._paths:
            path.unlink(missing_ok=True)
        self._paths.clear()

    async def aclose(self) -> None:
        """Accept no more, and end the connections that run."""
        self.close()
        await self._tasks.aclose()

    # Internal

    def _protocol(self) -> Conn:
        return Conn(self._made)

    def _made(self, conn: Conn) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS:
            _log.warning("too many connections, one is refused", frontend=self._name, limit=MAX_CONNECTIONS)
            conn.reset()
            return
        self._tasks.spawn(f"connection {conn.peer}", self._serve(conn))

    async def _serve(self, conn: Conn) -> None:
        try:
            await self._handler(conn)
        except StreamError as error:
            _log.debug("connection ended", frontend=self._name, peer=conn.peer, reason=str(error))
        finally:
            await conn.aclose()


def _bind_unix(path: Path) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()  # left behind by a process that was killed
            else:
                raise OSError(errno.EADDRINUSE, "another process listens there")
    sock = socket.socket(socket.AF_UNIX)
    try:
        # Nobody may connect between bind and chmod: the socket does not listen yet.
        sock.bind(str(path))
        path.chmod(UNIX_MODE)
    except OSError:
        sock.close()
        raise
    return sock


def _reason(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)
