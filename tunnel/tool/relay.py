"""Carries standard input and output over a connection that `connect.py` made, in one thread, with half-close.

Windows can wait for sockets alone: there a second thread reads standard input into one.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading

from tunnel.core.wire.faults import CONNECTION_BROKE, OUTPUT_CLOSED
from tunnel.tool.connect import CHUNK_BYTES, ConnectFailed, Joined, Proxy, reason

STDIN, STDOUT = 0, 1
SELECTS_FILES = os.name != "nt"
"""Whether select() takes what is no socket."""
LOOK_S = 1.0
"""The seconds between two looks at a unix socket whose other side has finished: its full close raises no event of its
own."""


def relay(proxy: Proxy, joined: Joined) -> None:
    """Copies both ways until both directions have ended; at a terminal, until the other side has.

    Raises:
        ConnectFailed: the connection broke, or nobody reads standard output: bytes may be missing.
    """
    proxy.sock.setblocking(False)
    if sys.platform == "win32":
        import msvcrt

        for descriptor in (STDIN, STDOUT):
            msvcrt.setmode(descriptor, os.O_BINARY)  # else line ends are translated
    try:
        _Relay(proxy, STDIN if SELECTS_FILES else pumped(STDIN)).run(joined)
    except OSError as error:
        raise ConnectFailed(f"the connection broke: {reason(error)}", CONNECTION_BROKE) from error
    finally:
        proxy.sock.close()


def pumped(descriptor: int) -> socket.socket:
    """Returns a socket that has what a descriptor is read for, and ends as that does. Nobody waits for its thread."""
    ours, theirs = socket.socketpair()

    def pump() -> None:
        with theirs:
            try:
                while data := os.read(descriptor, CHUNK_BYTES):
                    theirs.sendall(data)
            except OSError:  # nobody reads any more, or there is no input at all: both are its end
                return

    threading.Thread(target=pump, name="input", daemon=True).start()
    return ours


class _Relay:
    """Carries standard input to the socket and the socket to standard output."""

    def __init__(self, proxy: Proxy, source: int | socket.socket) -> None:
        """Prepares the relay; `source` is what stands for standard input."""
        self._source = source
        self._sock = proxy.sock
        self._wire = proxy.wire
        self._unsent = bytearray()
        self._input_open = True
        self._said_end = False
        self._peer_ended = False
        self._peer_gone = False
        self._terminal = os.isatty(STDIN)

    def run(self, joined: Joined) -> None:
        _write_out(joined.early)
        if joined.ended:
            self._on_peer_end()
        while not self._done():
            # select() and not epoll: standard input may be a file.
            writers = [self._sock] if self._unsent else []
            readable, _, _ = select.select(self._readers(), writers, [], LOOK_S if self._peer_ended else None)
            if self._source in readable:
                self._read_input()
            if self._sock in readable:
                self._receive()
            self._send()
            if self._peer_ended and (self._peer_gone or _hung_up(self._sock)):
                self._on_peer_gone()

    def _done(self) -> bool:
        """Returns whether nothing is left to carry.

        At a terminal, the other side's end is enough: nobody would know to type the end of an input that has nowhere
        to go.
        """
        if self._peer_gone:
            return True
        return self._peer_ended and not self._unsent and (self._terminal or not self._input_open)

    def _readers(self) -> list[int | socket.socket]:
        readers: list[int | socket.socket] = []
        if not (self._peer_ended and self._wire.plain):  # a plain socket that ended is readable for ever
            readers.append(self._sock)
        if self._input_open and len(self._unsent) < CHUNK_BYTES:
            readers.append(self._source)
        return readers

    def _read_input(self) -> None:
        try:
            source = self._source
            data = source.recv(CHUNK_BYTES) if isinstance(source, socket.socket) else os.read(source, CHUNK_BYTES)
        except BlockingIOError:  # shared with a program that wants it so, and that was quicker
            return
        self._input_open = bool(data)
        self._unsent += self._wire.seal(data) if data else self._wire.finish()

    def _receive(self) -> None:
        try:
            received = self._sock.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        if self._peer_ended:
            self._peer_gone = not received
            return
        opened, ended = self._wire.open(received)
        _write_out(opened)
        if ended:
            self._on_peer_end()
        self._unsent += self._wire.pending()

    def _on_peer_end(self) -> None:
        """Ends standard output, since who reads our output need not wait for our other direction."""
        self._peer_ended = True
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, STDOUT)
        os.close(nothing)

    def _on_peer_gone(self) -> None:
        """Takes note that the other side closed both directions: that is an end in order, unless there is more to say.

        Raises:
            ConnectFailed: there is.
        """
        self._peer_gone = True
        if self._input_open and select.select([self._source], [], [], 0)[0]:
            self._read_input()
        if self._unsent and self._input_open:
            raise ConnectFailed("the connection broke: the other side takes no more", CONNECTION_BROKE)

    def _send(self) -> None:
        if self._unsent:
            try:
                del self._unsent[: self._sock.send(self._unsent)]
            except BlockingIOError:
                return
        if not self._unsent and not self._input_open and not self._said_end:
            self._said_end = True
            if self._wire.plain:
                self._sock.shutdown(socket.SHUT_WR)


def _hung_up(sock: socket.socket) -> bool:
    if not hasattr(select, "poll"):  # Windows: there are no unix sockets either
        return False
    poll = select.poll()
    poll.register(sock, 0)  # a hang-up is told without being asked for
    return any(events & select.POLLHUP for _, events in poll.poll(0))


def _write_out(data: bytes) -> None:
    while data:
        try:
            data = data[os.write(STDOUT, data) :]
        except BlockingIOError:
            select.select([], [STDOUT], [])
        except BrokenPipeError:
            raise ConnectFailed("nobody reads standard output any more", OUTPUT_CLOSED) from None
