"""A stream as the daemons use it.

It is a Duplex for one task each way; or, for a splice, it has a fast side without any tasks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from tunnel.aio.process.clock import Clock
from tunnel.core import events as ev
from tunnel.core.session import Session
from tunnel.core.streams.stream import CoreStream, StreamStatistics
from tunnel.core.wire.errors import Code, StreamBusy, StreamClosed, StreamError, StreamReset
from tunnel.core.wire.faults import Fault
from tunnel.core.wire.target import Target


class StreamSink(Protocol):
    """Takes a stream's events in place of `read` and `write`.

    It is called from the event loop, and may neither block nor raise.
    """

    def readable(self) -> None:
        """Is called when chunks wait in `receive_nowait`."""
        ...

    def eof(self) -> None:
        """Is called when the peer finished; every chunk before it was announced."""
        ...

    def writable(self) -> None:
        """Is called when `send_nowait` may go on."""
        ...

    def ended(self, error: StreamError | None) -> None:
        """Is the last call.

        None means that both directions finished and the peer has everything; `eof` may not have been told.
        """
        ...


class StreamDriver(Protocol):
    """What a stream needs of the session that drives it."""

    core: Session
    now: Clock

    def kick(self) -> None:
        """Is called when something may be there to send, or events to hand out."""
        ...

    def forget(self, stream_id: int) -> None:
        """Forgets a stream that this side reset: no event of it follows."""
        ...


class _Waiter:
    """Lets one task wait for a stream's next event."""

    __slots__ = ("_future", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._future: asyncio.Future[None] | None = None

    async def wait(self) -> None:
        if self._future is not None:
            raise StreamBusy(f"another task {self._what} this stream")
        self._future = asyncio.get_running_loop().create_future()
        try:
            await self._future
        finally:
            self._future = None

    def wake(self) -> None:
        if self._future is not None and not self._future.done():
            self._future.set_result(None)


class Stream:
    """One stream of a session. It reads and writes as a `Duplex` does; its plain and its splice side do not mix.

    Attributes:
        id: number on the wire.
        target: what it was opened to.
        resolved_address: what the accepting side dialled; empty for a service.
        now: the clock of its session.
    """

    def __init__(self, driver: StreamDriver, core: CoreStream) -> None:
        self.id = core.id
        self.target: Target = core.target
        self.resolved_address = core.resolved_address
        self.now = driver.now
        self._driver = driver
        self._core = core
        self._sink: StreamSink | None = None
        self._chunks: list[bytes] = []
        self._eof = False
        self._ended = False
        self._error: StreamError | None = None
        self._reader = _Waiter("reads")
        self._writer = _Waiter("writes")
        self._when_ended: Callable[[], None] | None = None

    # Public

    def when_ended(self, callback: Callable[[], None]) -> None:
        """Sets what is called once, when the stream is over; at once when it is already. It may not raise."""
        if self._ended:
            callback()
        else:
            self._when_ended = callback

    @property
    def error(self) -> StreamError | None:
        """Returns why it ended before both sides had finished; None while it has not, and after an end in order."""
        return self._error

    # Public - plain side

    async def read(self, max_bytes: int = 65536) -> bytes:
        """Waits for bytes and returns up to `max_bytes`; `b""` when the peer finished.

        A cancelled read loses nothing.

        Raises:
            StreamReset, SessionLost: the stream ended otherwise.
            StreamClosed: this side reset it.
            StreamBusy: another task is reading.
        """
        while not self._chunks:
            self._chunks.extend(self._driver.core.take(self._core))
            if self._chunks:
                break
            if self._error is not None:
                raise self._error
            if self._eof or self._ended:
                self._driver.kick()
                return b""
            await self._reader.wait()
        chunk = self._chunks.pop(0)
        if len(chunk) > max_bytes:
            self._chunks.insert(0, chunk[max_bytes:])
            chunk = chunk[:max_bytes]
        self.consumed(len(chunk))
        return chunk

    async def write(self, data: bytes | memoryview) -> None:
        """Queues bytes, and waits while the queue is full: before, and after them.

        Cancelled in the second wait, all of them are queued already.

        Raises:
            StreamReset, SessionLost: the bytes may not arrive.
            StreamClosed: `write_eof`, `aclose` or `reset` was called.
            StreamBusy: another task is writing.
        """
        await self._until_room()
        self._check_open()
        self.send_nowait(bytes(data))
        await self._until_room()
        if self._error is not None:
            raise self._error

    async def write_eof(self) -> None:
        """Finishes this direction behind what was written."""
        self.send_eof_nowait()

    async def aclose(self) -> None:
        """Finishes both directions: what was written is delivered in the background, what still comes is dropped."""
        self.close_nowait()

    def reset(self, code: Code = Code.CANCELLED, text: str = "") -> None:
        """Ends both directions at once; the peer sees RESET with this code."""
        if self._ended:
            return
        self._driver.core.reset_stream(self._core, code, text)
        self._driver.forget(self.id)
        self._end(StreamClosed.from_peer(text or "reset by this side", code), tell_sink=False)
        self._driver.kick()

    def abort(self, code: Code, text: str, fault: Fault | None = None) -> None:
        """Ends both directions at once, for who uses it here too: reads, writes and the sink see StreamReset.

        `fault` says why more closely than the code; the peer is told it, too. None: the code says it all.
        """
        if self._ended:
            return
        error = StreamReset(text, code, fault)
        self._driver.core.reset_stream(self._core, code, error.told)
        self._driver.forget(self.id)
        self._end(error, tell_sink=True)
        self._driver.kick()

    # Public - splice side

    def attach(self, sink: StreamSink) -> None:
        """Hands all events from now on to `sink`; those that already happened are told at once."""
        self._sink = sink
        if self._ended:
            sink.ended(self._error)
            return
        if self._core.receive.queued or self._chunks:
            sink.readable()
        if self._eof and not self._ended:
            sink.eof()

    def send_nowait(self, data: bytes, *more: bytes) -> bool:
        """Queues bytes, and `more` behind them; returns False when the caller is to stop until `writable`.

        Bytes for an ended stream are dropped.
        """
        room = self._driver.core.send_data(self._core, data, self.now(), *more)
        self._driver.kick()
        return room

    def room_nowait(self) -> int:
        """Returns how many bytes `send_nowait` takes before it asks the caller to stop; 0 or less: it has asked."""
        return self._driver.core.send_room(self._core)

    def send_eof_nowait(self) -> None:
        """Finishes this direction behind what was queued."""
        self._driver.core.send_fin(self._core, self.now())
        self._driver.kick()

    def close_nowait(self) -> None:
        """Finishes both directions: queued bytes are delivered, what still comes is dropped."""
        if self._ended:
            return
        core = self._driver.core
        core.send_fin(self._core, self.now())
        core.stop_sending(self._core, Code.CANCELLED, self.now())
        self._chunks.clear()
        self._eof = True
        self._driver.kick()

    def stop_reading_nowait(self) -> None:
        """Says that nobody reads any more, and drops what still comes; the other direction goes on."""
        if not self._ended:
            self._driver.core.stop_sending(self._core, Code.CANCELLED, self.now())
            self._driver.kick()

    def receive_nowait(self) -> list[bytes]:
        """Returns everything that arrived, in order, in chunks of up to 64 KiB; grants no credit.

        The stream does not end before they are `consumed`, so that its owner has the last in hand when it hears of the
        end.
        """
        chunks = [*self._chunks, *self._driver.core.take(self._core)]
        self._chunks.clear()
        return chunks

    def consumed(self, count: int) -> None:
        """Notes that the reader is done with `count` bytes, so that the peer may send more."""
        self._driver.core.consumed(self._core, count, self.now())
        self._driver.kick()

    def statistics(self) -> StreamStatistics:
        """Returns the figures of the stream as they stand; those of an ended stream stay."""
        return self._core.statistics()

    # Internal - called by the session

    def tell(self, event: ev.StreamReadable | ev.StreamWritable | ev.StreamFinished) -> None:
        """Takes an event of this stream."""
        match event:
            case ev.StreamReadable():
                self.on_readable()
            case ev.StreamWritable():
                self.on_writable()
            case ev.StreamFinished():
                self.on_eof()

    def on_readable(self) -> None:
        """Wakes the reader, or tells the sink: bytes arrived where none were waiting."""
        if self._sink is not None:
            self._sink.readable()
        else:
            self._reader.wake()

    def on_eof(self) -> None:
        """Wakes the reader, or tells the sink: the peer finished."""
        self._eof = True
        if self._sink is not None:
            self._sink.eof()
        else:
            self._reader.wake()

    def on_writable(self) -> None:
        """Wakes the writer, or tells the sink: the queue has room again."""
        if self._sink is not None:
            self._sink.writable()
        else:
            self._writer.wake()

    def on_ended(self, error: StreamError | None) -> None:
        """Ends the stream for who uses it here; no other event follows."""
        self._end(error, tell_sink=True)

    def _end(self, error: StreamError | None, *, tell_sink: bool) -> None:
        if self._ended:
            return
        self._ended = True
        self._error = error
        if error is not None:
            self._chunks.clear()
        self._reader.wake()
        self._writer.wake()
        callback, self._when_ended = self._when_ended, None
        if callback is not None:
            callback()
        if self._sink is not None and tell_sink:
            self._sink.ended(error)

    async def _until_room(self) -> None:
        while self._core.send.full and not self._ended:
            await self._writer.wait()

    def _check_open(self) -> None:
        if self._error is not None:
            raise self._error
        if self._ended or not self._core.send.takes_bytes:
            raise StreamClosed("this side had finished")
