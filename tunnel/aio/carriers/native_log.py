"""Turns what gRPC's C++ core writes to file descriptor 2 into events; above all which peer failed its TLS handshake.

gRPC tells Python nothing of a client whose certificate it rejects. Its `handshaker` trace does: seven lines for each
connection, and the one of a failure has the peer's address and the reason. `enable_handshake_trace` switches it on,
`capture` reads it, and the rest of what the core says is passed on at warning level and above.

While it is captured, descriptor 2 is a pipe of ours that is always read: the core writes from whichever thread it is
in, the event loop's too, and none of them waits for whoever reads the log. Python's own words must go elsewhere (see
`process/log_sink.py`). What a crash of the C++ core prints in its last moment may be lost in the pipe.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import select
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from urllib.parse import unquote

from tunnel.aio.carriers.environment import prepare_grpc
from tunnel.aio.sockets.handshake_fault import Cause, HandshakeFault, understood

_PIPE_BYTES = 1024 * 1024
"""The size of the pipe: the reader may be late by about 250 connections of 4 KB."""
_MAX_RECORD_BYTES = 64 * 1024
_PAUSE_S = 0.1
_SILENT = "NONE"
"""The verbosity of gRPC at which it says nothing."""
_QUIET_S = 1.0
"""After the first few, one record is reported each time that so many seconds have passed; the rest is counted."""
_BURST = 20

_RECORD_START = re.compile(rb"^(?=[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ )", re.MULTILINE)
_HEAD = re.compile(rb"([IWEF])\d{4} \S+ +\d+ (\S+?):\d+\] (.*)", re.DOTALL)
_FAILED = re.compile(
    rb"CallNextHandshakerLocked: error=(?!OK\b)(.*?) shutdown=.*endpoint_peer_address=([^,}]+)", re.DOTALL
)
_LINE_END = re.compile(rb"\n")
_LONG_END = re.compile(rb"exit_early=\d\}\n|\n\n")
_SOURCE_TRACE = re.compile(r"\s*=== Source Location Trace.*", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class HandshakeFailed:
    """A peer did not get through the TLS handshake."""

    peer: str
    """The peer's address, `ip:port`."""
    fault: HandshakeFault
    """Why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeMessage:
    """Anything else that the core found worth a warning."""

    level: str
    """The level, "warning" or "error"."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppressed:
    """Events that were not reported, because they came too fast."""

    handshakes: Counter[Cause]
    """How many peers did not get through the TLS handshake, by cause."""
    others: int
    """How many events were something else."""


NativeEvent = HandshakeFailed | NativeMessage | Suppressed


def enable_handshake_trace() -> None:
    """Switches the trace of handshakes on for this process. It must be called before anything imports grpc.

    Raises:
        RuntimeError: it is too late.
    """
    if "grpc" in sys.modules:
        raise RuntimeError("grpc was imported before its trace was enabled")
    prepare_grpc()
    tracers = [name for name in os.environ.get("GRPC_TRACE", "").split(",") if name]
    os.environ["GRPC_TRACE"] = ",".join(dict.fromkeys([*tracers, "handshaker"]))


def silence_core() -> None:
    """Keeps the core silent where nothing captures it: it tells of every link that comes, goes or fails, and so do we.

    It must be called before anything imports grpc. What the environment asks for stays, see `relay`.
    """
    prepare_grpc()
    os.environ.setdefault("GRPC_VERBOSITY", _SILENT)


@contextlib.asynccontextmanager
async def relay(foreign: Callable[[bytes], None]) -> AsyncIterator[None]:
    """Owns file descriptor 2 and gives on all that the core says, where the environment asks it to speak."""
    if os.environ.get("GRPC_VERBOSITY", _SILENT).upper() == _SILENT:
        yield
        return
    async with _owned(_Pipe(foreign, lambda: None)):
        yield


@contextlib.asynccontextmanager
async def capture(on_event: Callable[[NativeEvent], None], foreign: Callable[[bytes], None]) -> AsyncIterator[None]:
    """Owns file descriptor 2 while the block runs, and turns what the core writes there into events.

    Args:
        on_event: is given each event, in the event loop.
        foreign: is given what else is written there, by children of this process for example; in a thread.
    """
    loop = asyncio.get_running_loop()

    def deliver(event: NativeEvent) -> None:
        # The loop may be closed while the last lines come in.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(on_event, event)

    reporter = _Reporter(deliver, foreign)
    async with _owned(_Pipe(reporter.received, reporter.paused)):
        yield


class RecordParser:
    """Cuts the core's output into records and says what each means. It does no I/O: bytes go in, events come out."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> tuple[list[HandshakeFailed | NativeMessage], bytes]:
        """Takes output, and returns the events of all complete records, and the text that is no record of the core."""
        self._buffer += data
        *records, self._buffer = _RECORD_START.split(self._buffer)
        if len(self._buffer) > _MAX_RECORD_BYTES:
            records.append(self._buffer)
            self._buffer = b""
        return self._understand(records)

    def flush(self) -> tuple[list[HandshakeFailed | NativeMessage], bytes]:
        """Returns what is left when nothing more comes for now: the last record has no successor to end it."""
        record, self._buffer = self._buffer, b""
        return self._understand([record])

    @staticmethod
    def _understand(records: list[bytes]) -> tuple[list[HandshakeFailed | NativeMessage], bytes]:
        events: list[HandshakeFailed | NativeMessage] = []
        foreign = b""
        for record in records:
            head = _HEAD.match(record)
            if head is None:
                foreign += record
                continue
            # Something else may follow a record, above all the last words of a crash.
            end = (_LONG_END if b"=== Source Location Trace" in record else _LINE_END).search(record)
            foreign += record[end.end() :] if end else b""
            if failed := _FAILED.search(record):
                events.append(_handshake_failed(*failed.groups()))
            elif head[1] in b"EF" or (head[1] == b"W" and b"Log level" not in record):
                text = _SOURCE_TRACE.sub("", head[3].decode("utf-8", "replace")).strip()
                events.append(NativeMessage(level="warning" if head[1] == b"W" else "error", text=text[:1000]))
        return events, foreign


# Internal


@contextlib.asynccontextmanager
async def _owned(pipe: _Pipe) -> AsyncIterator[None]:
    pipe.start()
    try:
        yield
    finally:
        await asyncio.to_thread(pipe.stop)


class _Pipe:
    """The pipe that descriptor 2 is meanwhile, and its reader: a thread, since the loop itself may be who writes."""

    def __init__(self, received: Callable[[bytes], None], paused: Callable[[], None]) -> None:
        """Reads nothing yet.

        Both callbacks are called in the thread; `paused` when nothing has come for a moment, and at the end.
        """
        self._received = received
        self._paused = paused
        self._thread = threading.Thread(target=self._run, name="native-log", daemon=True)

    def start(self) -> None:
        self._original = os.dup(2)
        self._read_end, write_end = os.pipe2(os.O_CLOEXEC)
        with contextlib.suppress(OSError):
            fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        # A full pipe loses lines; a blocking one could stop the core in the middle of its work.
        os.set_blocking(write_end, False)
        os.dup2(write_end, 2)
        os.close(write_end)
        self._thread.start()

    def stop(self) -> None:
        """Gives file descriptor 2 back, which is the end of the pipe for the reader."""
        os.dup2(self._original, 2)
        self._thread.join(5.0)
        os.close(self._original)

    def _run(self) -> None:
        try:
            while data := os.read(self._read_end, 65536):
                self._received(data)
                if not select.select([self._read_end], [], [], _PAUSE_S)[0]:
                    self._paused()
            self._paused()
        finally:
            os.close(self._read_end)


class _Reporter:
    """Turns the core's output into events, and reports not too many of them."""

    def __init__(self, deliver: Callable[[NativeEvent], None], foreign: Callable[[bytes], None]) -> None:
        self._deliver = deliver
        self._foreign = foreign
        self._parser = RecordParser()
        self._rate = _Rate()
        self._suppressed: Counter[Cause | None] = Counter()
        """What was not reported, by the cause of a handshake that failed; None for something else."""

    def received(self, data: bytes) -> None:
        self._report(*self._parser.feed(data))

    def paused(self) -> None:
        self._report(*self._parser.flush())

    def _report(self, events: list[HandshakeFailed | NativeMessage], foreign: bytes) -> None:
        if foreign.strip():
            self._foreign(foreign)
        for event in events:
            if not self._rate.allows(time.monotonic()):
                self._suppressed[event.fault.cause if isinstance(event, HandshakeFailed) else None] += 1
                continue
            if self._suppressed:
                others = self._suppressed.pop(None, 0)
                handshakes = Counter({cause: count for cause, count in self._suppressed.items() if cause is not None})
                self._deliver(Suppressed(handshakes=handshakes, others=others))
                self._suppressed.clear()
            self._deliver(event)


class _Rate:
    """Allows at most `_BURST` events at once, and one each `_QUIET_S`."""

    def __init__(self) -> None:
        self._tokens = float(_BURST)
        self._at = 0.0

    def allows(self, now: float) -> bool:
        self._tokens = min(_BURST, self._tokens + (now - self._at) / _QUIET_S)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _handshake_failed(raw_error: bytes, raw_peer: bytes) -> HandshakeFailed:
    error = _SOURCE_TRACE.sub("", raw_error.decode("utf-8", "replace")).strip()
    _, _, peer = raw_peer.decode("ascii", "replace").partition(":")
    return HandshakeFailed(peer=unquote(peer), fault=understood(error))
