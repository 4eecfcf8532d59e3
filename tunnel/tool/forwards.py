"""Listens on ports here, and carries each connection through CONNECT to a target, as `ssh -L` does: `longline forward`.

Each connection has a thread and dials the server anew, so that a server which was away is found again by the next one.
"""

from __future__ import annotations

import re
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tunnel.core.wire.faults import CANNOT_LISTEN, USAGE, FaultError
from tunnel.tool.api import reset_socket
from tunnel.tool.connect import CHUNK_BYTES, ConnectFailed, Joined, Proxy, reason

MAX_CONNECTIONS = 256
"""The most connections at once, over all ports: each has a thread, and select() takes descriptors up to 1,024."""
NO_DESCRIPTOR_S = 0.1
"""The seconds of pause after a connection that could not be taken."""
BACKLOG = 64
_FORWARD = re.compile(
    r"(?:(?P<bind>\[[0-9A-Fa-f:.%]+\]|[^:\[\]]*):)?(?P<port>\d{1,5}):(?P<target>[^:\[\]\s]+:[A-Za-z0-9._-]+)"
)

Reach = Callable[[str], tuple[Proxy, Joined]]
"""A function that connects to a target; raises ConnectFailed."""
Tell = Callable[[str], None]
"""A function that takes a line for the person at the terminal."""


class ForwardUnusable(FaultError):
    """A -L that cannot be used; the text says what to write."""

    default_fault = USAGE


@dataclass(frozen=True, slots=True)
class Forward:
    """A -L option of the command line, parsed."""

    bind: str
    """The address to listen on here, without brackets."""
    port: int
    """The port to listen on; 0: any that is free."""
    target: str
    """The target as CONNECT takes it: box-7:22, printer.box-7.longline:631."""


def parse_forward(text: str) -> Forward:
    """Reads [BIND:]PORT:TARGET; without BIND it is loopback, and `*` is every address.

    Raises:
        ForwardUnusable: the text is not of this form.
    """
    match = _FORWARD.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ForwardUnusable(f"-L {text}: write [BIND:]PORT:BOX:PORT, such as 8080:box-7:80")
    bind = match["bind"]
    if bind is None:
        bind = "127.0.0.1"
    elif bind in ("", "*"):
        bind = "0.0.0.0"
    return Forward(bind.strip("[]"), int(match["port"]), match["target"])


class Forwards:
    """All -L of one command. The caller uses `listen`, then `serve`, and `close` at the end."""

    def __init__(self, reach: Reach, tell: Tell) -> None:
        self._reach = reach
        self._tell = tell
        self._listeners: list[tuple[socket.socket, Forward]] = []
        self._room = threading.Semaphore(MAX_CONNECTIONS)

    def listen(self, forwards: Sequence[Forward]) -> None:
        """Opens the ports, all or none.

        Raises:
            ForwardUnusable: one cannot be opened.
        """
        try:
            for forward in forwards:
                sock = _listener(forward)
                self._listeners.append((sock, forward))
                host, port = sock.getsockname()[:2]
                shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                self._tell(f"listening on {shown} for {forward.target}")
        except ForwardUnusable:
            self.close()
            raise

    def serve(self) -> None:
        """Carries what comes in until it is interrupted."""
        targets = {sock: forward.target for sock, forward in self._listeners}
        while True:
            readable, _, _ = select.select(list(targets), [], [])
            for listener in readable:
                try:
                    sock, _ = listener.accept()
                except OSError:  # it left already, or there is no descriptor for it, and will be none at once
                    time.sleep(NO_DESCRIPTOR_S)
                    continue
                if not self._room.acquire(blocking=False):
                    self._tell(f"{MAX_CONNECTIONS} connections are open already: one more was refused")
                    reset_socket(sock)
                    continue
                name = f"to {targets[listener]}"
                threading.Thread(target=self._handle, args=(sock, targets[listener]), name=name, daemon=True).start()

    def close(self) -> None:
        """Closes the ports."""
        for sock, _ in self._listeners:
            sock.close()
        self._listeners.clear()

    # Internal

    def _handle(self, sock: socket.socket, target: str) -> None:
        try:
            try:
                server, joined = self._reach(target)
            except ConnectFailed as error:
                self._tell(f"{target}: {error}")
                reset_socket(sock)
                return
            try:
                _Carried(sock, server, joined).run()
                sock.close()
                server.sock.close()
            except OSError as error:
                self._tell(f"{target}: the connection broke: {reason(error)}")
                reset_socket(server.sock)
                reset_socket(sock)
        finally:
            self._room.release()


def _listener(forward: Forward) -> socket.socket:
    try:
        ((family, kind, protocol, _, address), *_) = socket.getaddrinfo(
            forward.bind, forward.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        sock = socket.socket(family, kind, protocol)
        try:
            if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):  # Windows lets others take a port that is only reused
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(BACKLOG)
        except OSError:
            sock.close()
            raise
    except OSError as error:
        raise ForwardUnusable(
            f"cannot listen on {forward.bind} port {forward.port}: {reason(error)}", CANNOT_LISTEN
        ) from error
    return sock


class _Carried:
    """Carries one connection until both directions have ended. It asks neither side for more than the other takes."""

    def __init__(self, local: socket.socket, server: Proxy, joined: Joined) -> None:
        self._local = local
        self._server = server.sock
        self._wire = server.wire
        self._to_local = bytearray(joined.early)
        self._to_server = bytearray()
        self._local_ended = False
        self._server_ended = joined.ended
        self._server_gone = False
        self._said_local_end = False
        self._said_server_end = False

    def run(self) -> None:
        """Carries the connection to its end.

        Raises:
            OSError: one side broke: the end of the other must be no clean one.
        """
        self._local.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._local.setblocking(False)
        self._server.setblocking(False)
        self._say_ends()
        while not (self._said_local_end and (self._said_server_end or self._server_gone)):
            readers, writers = self._interest()
            readable, writable, _ = select.select(readers, writers, [])
            if self._local in readable:
                self._from_local()
            if self._server in readable:
                self._from_server()
            if self._local in writable or self._to_local:
                _push(self._local, self._to_local)
            if self._to_server:
                _push(self._server, self._to_server)
            self._say_ends()

    # Internal

    def _interest(self) -> tuple[list[socket.socket], list[socket.socket]]:
        readers, writers = [], []
        if not self._local_ended and len(self._to_server) < CHUNK_BYTES:
            readers.append(self._local)
        over = self._server_gone or (self._server_ended and self._wire.plain)  # a socket that ended is always readable
        if not over and len(self._to_local) < CHUNK_BYTES:
            readers.append(self._server)
        if self._to_local:
            writers.append(self._local)
        if self._to_server:
            writers.append(self._server)
        return readers, writers

    def _from_local(self) -> None:
        try:
            data = self._local.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        self._local_ended = not data
        self._to_server += self._wire.seal(data) if data else self._wire.finish()

    def _from_server(self) -> None:
        try:
            received = self._server.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        if self._server_ended:  # behind its end only the end of the connection can come
            self._server_gone = not received
            return
        data, ended = self._wire.open(received)
        self._to_local += data
        self._to_server += self._wire.pending()
        self._server_ended = ended

    def _say_ends(self) -> None:
        """Passes on each end behind the last byte before it."""
        if self._server_ended and not self._to_local and not self._said_local_end:
            self._said_local_end = True
            _shut(self._local)
        if self._local_ended and not self._to_server and not self._said_server_end:
            self._said_server_end = True
            if self._wire.plain:
                _shut(self._server)


def _push(sock: socket.socket, data: bytearray) -> None:
    try:
        del data[: sock.send(data)]
    except BlockingIOError:
        return


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:  # gone already, which says the same
        return
