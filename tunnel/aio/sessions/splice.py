"""The data path between a local socket and a stream: no task, no copy that is not needed, back-pressure both ways.

From the socket, nearly 256 KiB are read at a time into the buffer that all connections share (read_buffer.py), cut into
frames and queued; a full queue pauses reading. Towards the socket, chunks are written as they came, and credit for them
is granted only when the socket took them.

An end is passed on as an end, a reset as a reset: a socket whose stream was reset or lost gets RST, never FIN, since
FIN promises that all bytes arrived (see sockets/tcp.py, and sockets/last_word.py for unix sockets).
"""

from __future__ import annotations

import asyncio
import functools
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Concatenate, NamedTuple, ParamSpec

import structlog

from tunnel.aio.sessions.stream import Stream
from tunnel.aio.sockets.conn import Detached, reset_of
from tunnel.aio.sockets.last_word import LastWord, is_unix
from tunnel.aio.sockets.read_buffer import READ_BUFFER
from tunnel.aio.sockets.tcp import abort_with_reset, end_in_order
from tunnel.core.wire.errors import Code, StreamError
from tunnel.core.wire.faults import BUG
from tunnel.core.wire.limits import CHUNK_BYTES

READ_BYTES = 4 * CHUNK_BYTES
"""The most bytes of one read of a socket: four frames."""
LEAST_READ_BYTES = 512
"""The least: where memory is short, thousands of streams have room for a little each."""
LINGER_S = 10.0
"""Seconds that a socket may read what it was sent while its own bytes are thrown away."""
LINGER_BYTES = 4 * 1024 * 1024
"""How many bytes are thrown away: what was on its way, not an endless download, which would take a processor."""
WATCH_S = 5.0
"""Seconds that a reset, or the full close of a unix socket, may go unseen while the socket is not read from."""

_log = structlog.get_logger("tunnel.splice")
_P = ParamSpec("_P")

_buffer = READ_BUFFER[:READ_BYTES]


class SpliceResult(NamedTuple):
    """How a splice went."""

    bytes_from_socket: int
    bytes_to_socket: int
    duration_s: float
    reason: str
    """The word `closed`, or the label of the code it was reset with."""
    text: str
    """More about a reset; may be empty."""


async def splice(stream: Stream, detached: Detached) -> SpliceResult:
    """Joins a stream and a socket until both are done, and returns how that went.

    It takes both over, also when it is cancelled: then both are reset.

    Args:
        stream: an open stream that nobody else reads from.
        detached: the socket, from `Conn.detach`.
    """
    started_s = stream.now()
    joint = _Joint(stream, detached.transport)
    try:
        joint.start(detached.leftover, at_eof=detached.at_eof)
        del detached  # up to 64 KiB that are counted in the stream's queue, and would stay with this call for its life
        await asyncio.shield(joint.done)
    except asyncio.CancelledError:
        joint.cut(Code.SHUTTING_DOWN, "the daemon is stopping")
        raise
    except Exception:
        joint.fail()
        raise
    counts = stream.statistics()
    return SpliceResult(
        counts.bytes_sent, counts.bytes_received, stream.now() - started_s, joint.end.reason, joint.end.text
    )


@dataclass(slots=True)
class _End:
    reason: str = "closed"
    text: str = ""


def _guarded(callback: Callable[Concatenate[_Joint, _P], None]) -> Callable[Concatenate[_Joint, _P], None]:
    """Wraps a callback so that a fault in it resets both ends.

    Else the event loop would log it and the connection would hang; or, called by the session, it would keep other
    streams from their events.
    """

    @functools.wraps(callback)
    def call(self: _Joint, /, *args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            callback(self, *args, **kwargs)
        except Exception:  # noqa: BLE001 - whatever it is
            _log.exception("splice failed", code=BUG.code, callback=callback.__name__)
            self.fail()

    return call


class _Joint(asyncio.BufferedProtocol):
    """The protocol of the socket and the sink of the stream at once."""

    def __init__(self, stream: Stream, transport: asyncio.Transport) -> None:
        self._stream = stream
        self._transport = transport
        self._tls = transport.get_extra_info("ssl_object") is not None
        self._reading = False
        self._socket_eof = False
        self._stream_eof = False
        self._wrote_eof = False
        self._write_paused = False
        self._ungranted = 0
        self._thrown_away = 0
        self._socket_gone = False
        self._stream_ended = False
        self._in_order = False
        """Whether both directions have ended, or end with the close of the socket: it is closed with FIN."""
        self._linger_timer: asyncio.TimerHandle | None = None
        self._watch_timer: asyncio.TimerHandle | None = None
        self._last_word: LastWord | None = None
        self.end = _End()
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def start(self, leftover: bytes, *, at_eof: bool) -> None:
        """Takes over the socket and the stream."""
        transport = self._transport
        if transport.is_closing():  # TLS of asyncio: its peer's end closes it, and nobody would tell us any more
            self._stream.send_nowait(leftover)
            self._socket_eof = at_eof
            self.connection_lost(None)
            return
        transport.set_protocol(self)
        # Whatever the socket does not take at once pauses us, so that credit stands for bytes really taken. Not 0: the
        # TLS of asyncio and uvloop pauses at >= high, and would pause for ever.
        transport.set_write_buffer_limits(high=1, low=0)
        more = self._stream.send_nowait(leftover) if leftover else True
        self._stream.attach(self)
        if self._stream_ended:
            return
        if at_eof:
            self.eof_received()
        elif more:
            self.writable()

    def cut(self, code: Code, text: str) -> None:
        """Resets the stream and the socket."""
        self._stream.reset(code, text)
        self._stream_ended = True
        self._finish(code.label, text)
        if not self._socket_gone:
            self._reset()

    def fail(self) -> None:
        """Resets both after a fault of ours, and tells whoever waits."""
        try:
            self.cut(Code.INTERNAL, "a fault of the daemon, whose log says more")
        finally:
            if not self.done.done():
                self.done.set_result(None)

    # From the socket

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the event loop's signature
        """Returns the buffer for the next read, which is no longer than what the stream has room for."""
        room = READ_BYTES if self._stream_ended else self._stream.room_nowait()
        return _buffer if room >= READ_BYTES else _buffer[: max(room, LEAST_READ_BYTES)]

    def buffer_updated(self, nbytes: int) -> None:
        """Queues what was read, in frames, before the buffer is used again."""
        if self._stream_ended:
            self._throw_away(nbytes)
            return
        cuts = range(0, nbytes, CHUNK_BYTES)
        more = self._stream.send_nowait(*[bytes(_buffer[cut : min(cut + CHUNK_BYTES, nbytes)]) for cut in cuts])
        if not more and self._reading:
            self._reading = False
            self._transport.pause_reading()
            self._watch()

    def eof_received(self) -> bool:
        """Passes on that the socket's peer finished.

        Plain sockets stay open for the other direction; asyncio's TLS cannot.
        """
        self._socket_eof = True
        self._reading = False
        if self._stream_ended:
            return False
        self._stream.send_eof_nowait()
        if self._tls:
            self._in_order = True
        else:
            self._watch()
        return not self._tls

    def pause_writing(self) -> None:
        """Notes that the socket did not take everything."""
        self._write_paused = True

    @_guarded
    def resume_writing(self) -> None:
        """Grants credit for what the socket took, which is everything, and goes on."""
        self._write_paused = False
        if self._ungranted:
            count, self._ungranted = self._ungranted, 0
            self._stream.consumed(count)
        if not self._stream_ended:
            self.readable()

    @_guarded
    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the stream since the socket is gone.

        What its peer sent and finished is delivered, all else is a reset.
        """
        self._socket_gone = True
        if exc is None and self._in_order:
            end_in_order(self._transport)
        for timer in (self._linger_timer, self._watch_timer, self._last_word):
            if timer is not None:
                timer.cancel()
        if self._stream_ended:
            self._settle()
            return
        if self._socket_eof or (exc is None and self._tls and self._wrote_eof):
            # A client that wrote and closed resets whatever answers come. That must not reach what it sent before.
            self._stream.close_nowait()
            self._stream_ended = True
            self._settle()
            return
        error = reset_of(exc or ConnectionResetError())
        self._finish(error.code.label, error.text)
        self._stream.reset(error.code, error.text)
        self._stream_ended = True
        self._settle()

    # From the stream (StreamSink)

    @_guarded
    def readable(self) -> None:
        """Writes the bytes that arrived, unless the socket is behind."""
        if self._behind() or self._socket_gone:
            return
        chunks = self._stream.receive_nowait()
        if chunks:
            count = sum(map(len, chunks))
            if len(chunks) == 1:
                self._transport.write(chunks[0])
            else:
                self._transport.writelines(chunks)
            if self._behind():
                self._ungranted += count
            else:
                self._stream.consumed(count)
        if self._stream_eof and not self._wrote_eof:
            self._write_end()

    @_guarded
    def eof(self) -> None:
        """Finishes the socket's direction behind everything that waits, since the peer finished."""
        self._stream_eof = True
        self.readable()

    @_guarded
    def writable(self) -> None:
        """Goes on reading, since the stream's queue has room."""
        if not self._reading and not self._socket_eof and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    @_guarded
    def ended(self, error: StreamError | None) -> None:
        """Closes the socket behind its last bytes, or resets it, since the stream is over."""
        self._stream_ended = True
        if error is not None:
            self._finish(error.code.label, str(error))
            if is_unix(self._transport) and not self._socket_eof and not self._transport.is_closing():
                self._last_word = LastWord(self._transport)
            else:
                self._reset()
        elif self._socket_eof or self._tls:
            self._close_in_order()
        else:
            self._linger()
        self._settle()

    # Internal

    def _behind(self) -> bool:
        """Returns whether the socket still holds bytes back; every write may change that."""
        return self._write_paused

    def _write_end(self) -> None:
        if self._wrote_eof:
            return
        self._wrote_eof = True
        if self._tls:
            self._close_in_order()  # TLS in asyncio ends both directions; queued bytes and close_notify go out first
        elif not self._transport.is_closing():
            self._transport.write_eof()

    def _close_in_order(self) -> None:
        self._in_order = True
        self._transport.close()

    def _reset(self) -> None:
        self._in_order = False
        abort_with_reset(self._transport)

    def _linger(self) -> None:
        """Reads on from a socket that goes on sending though the other end wants no more: closing now would reset away
        what it has yet to read.
        """
        self._in_order = True
        self._write_end()
        if not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()
        self._linger_timer = asyncio.get_running_loop().call_later(LINGER_S, self._stop_lingering)

    def _stop_lingering(self) -> None:
        """Closes the socket, whose time is over.

        What it has not even taken from us yet is missing there: that is no end.
        """
        if self._transport.get_write_buffer_size():
            self._reset()
        else:
            self._transport.abort()

    def _throw_away(self, nbytes: int) -> None:
        """Drops bytes that nobody wants: reading on keeps the kernel from resetting what the socket was sent.

        A socket that goes on and on is held back instead, until its time is over.
        """
        self._thrown_away += nbytes
        if self._thrown_away > LINGER_BYTES and self._reading:
            self._reading = False
            self._transport.pause_reading()

    def _watch(self) -> None:
        """Looks now and then whether the socket's peer is gone, of which nothing tells while nothing is
        read from it.
        """
        if self._watch_timer is None:
            self._watch_timer = asyncio.get_running_loop().call_later(WATCH_S, self._look)

    def _look(self) -> None:
        self._watch_timer = None
        if self._reading or self._socket_gone:
            return
        if _has_gone(self._transport, after_eof=self._socket_eof):
            self._transport.abort()
            return
        if not self._socket_eof and _has_gone(self._transport, after_eof=True):
            # A unix socket that was closed, with bytes of its that the stream has no room for yet.
            self._stream.stop_reading_nowait()
        self._watch()

    def _finish(self, reason: str, text: str) -> None:
        self.end = _End(reason, text)

    def _settle(self) -> None:
        if self._socket_gone and self._stream_ended and not self.done.done():
            self.done.set_result(None)


def _has_gone(transport: asyncio.Transport, *, after_eof: bool) -> bool:
    """Returns whether the peer reset the socket; or closed a unix socket behind its end, which is its only reset."""
    sock = transport.get_extra_info("socket")
    if sock is None or sock.fileno() == -1:
        return False
    signs = select.POLLERR
    if after_eof and sock.family == socket.AF_UNIX:
        signs |= select.POLLHUP
    poll = select.poll()
    poll.register(sock.fileno(), 0)  # errors and hang-ups are told without being asked for
    return any(events & signs for _, events in poll.poll(0))
