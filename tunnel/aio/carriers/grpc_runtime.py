"""Keeps gRPC's own thread and queue for the life of the process, and that thread from waiting for ours.

grpc.aio counts its channels, calls and servers, and takes its machinery down when the last is gone: at some moment of
the garbage collector, with a join of its thread in the event loop, and up again at the next dial.

That thread reads all connections. For each thing that is done it puts an event into a queue, and a byte into a pair of
sockets that wakes the event loop. The loop takes all events at each turn, and one byte. So where more than one thing is
done in a turn, bytes are left over; after 278 of them the pair is full, and the thread, whose write blocks, gets on by
one event a turn: for as long as the loop is busy, what arrives on any connection is read half a second late. It was
seen when 2,000 streams ended at once. A byte that finds no room is not needed, since those before it wake the loop as
well; and all that are there may be read at once.
"""

from __future__ import annotations

import functools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc.aio

DRAIN_BYTES = 4096
"""More than the bytes of one each that a pair of sockets takes."""


@functools.cache
def keep_grpc_running() -> None:
    """Takes one count that is never given back. Call it in the event loop before anything of grpc.aio is made."""
    with _wakes_that_never_wait():
        grpc.aio.init_grpc_aio()


# Internal


class _Drained(socket.socket):
    """A socket of which each read takes all that is there."""

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        return super().recv(max(bufsize, DRAIN_BYTES), flags)


@contextmanager
def _wakes_that_never_wait() -> Iterator[None]:
    """Has gRPC's pair of sockets made as it suits us. It has no option for that, and asks the standard library."""
    make, here = socket.socketpair, threading.get_ident()

    @functools.wraps(make)
    def made(*args: Any, **named: Any) -> tuple[socket.socket, socket.socket]:
        reader, writer = make(*args, **named)
        if threading.get_ident() != here:
            return reader, writer
        writer.setblocking(False)
        return _Drained(fileno=reader.detach()), writer

    socket.socketpair = made
    try:
        yield
    finally:
        socket.socketpair = make
