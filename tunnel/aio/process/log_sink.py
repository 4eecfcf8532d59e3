"""Brings log lines to standard error. Whoever logs only appends; a thread writes, and it alone may have to wait.

Whoever reads standard error may stop to, or go: a pager, a full disk, a container runtime that hangs. Then the thread
waits or fails, lines beyond a bound are lost, and how many is told where they are missing, once it writes again.

The descriptor stays as it is: O_NONBLOCK would hold for every process that shares it, and for the shell behind us.
"""

from __future__ import annotations

import fcntl
import io
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

MAX_QUEUED_BYTES = 1024 * 1024
"""The most bytes that wait to be written, some 3,500 lines. Beyond it the oldest go: whoever looks again wants to know
how things stand now, and how it began was written before, or waits in the pipe.
"""
BATCH_BYTES = 64 * 1024
"""The bytes of one write: as much as a pipe holds by default."""
RETRY_S = 1.0
"""Seconds that the next write waits after one that failed: what does not work need not be asked for each line."""
MAX_UNFINISHED_CHARS = 64 * 1024
"""The most characters of text without a line end that wait for it; only the queue behind has a bound of its own."""
EXIT_FLUSH_S = 1.0
"""Seconds that a daemon's end may wait for the last lines."""
_FIRST_OWN_DESCRIPTOR = 3


class LogSink:
    """A bounded queue of lines before a descriptor, and the thread that empties it."""

    def __init__(self, descriptor: int, tell: Callable[[int], bytes], max_bytes: int = MAX_QUEUED_BYTES) -> None:
        """Takes a copy of `descriptor` and begins to write.

        Args:
            descriptor: what is written to.
            tell: makes the line that says how many were lost.
            max_bytes: how much may wait.
        """
        self._descriptor = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_OWN_DESCRIPTOR)
        self._tell = tell
        self._max_bytes = max_bytes
        # Reentrant: the garbage collector may run a finalizer that logs inside of `write`.
        self._changed = threading.Condition(threading.RLock())
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._lost = 0
        self._told = 0
        self._idle = False
        self._hurry = False
        """Whether somebody waits for the end: a pause after a failure is over then."""
        self._closing = False
        self._not_before_s = 0.0
        self._due_s: Callable[[], float | None] = lambda: None
        self._tell_held: Callable[[float | None], None] = lambda _now_s: None
        self._woken = 0
        self._mid_line = False
        """Whether the last write ended inside a line."""
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    # Public

    def write(self, line: bytes) -> None:
        """Queues one line, its newline included. It never waits and never fails; from any thread."""
        size = len(line)
        with self._changed:
            self._lines.append(line)
            self._bytes += size
            while self._bytes > self._max_bytes:
                self._bytes -= len(self._lines.popleft())
                self._lost += 1
            if self._idle:
                self._idle = False
                self._changed.notify_all()

    def hold(self, due_s: Callable[[], float | None], tell: Callable[[float | None], None]) -> None:
        """Makes this thread tell of lines that were held back. Call it once, before anything is logged.

        Args:
            due_s: returns when there is something to tell next, in monotonic time; None when nothing is held.
            tell: writes what is due at a time, or with None all that is held.
        """
        self._due_s, self._tell_held = due_s, tell

    def wake(self) -> None:
        """Makes the thread ask `due_s` again, since a line is held that was not before."""
        with self._changed:
            self._woken += 1
            self._changed.notify_all()

    @property
    def lost(self) -> int:
        """Returns how many lines were lost so far."""
        return self._lost

    def flush(self, within_s: float) -> bool:
        """Waits until all is written that can be, for at most `within_s` seconds, and returns whether it was.

        What was held is told first.
        """
        self._tell_held(None)
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: self._idle and not self._lines, within_s)
            finally:
                self._hurry = False

    def close(self, within_s: float = EXIT_FLUSH_S) -> None:
        """Flushes, and ends the thread.

        One that is stuck in a write is left to its fate, and the descriptor with it.
        """
        self.flush(within_s)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(within_s)
        if not self._thread.is_alive():
            os.close(self._descriptor)

    # Internal - the thread

    def _run(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._deliver(batch)

    def _next_batch(self) -> list[bytes] | None:
        """Waits for lines, and for the end of a pause; returns None at the end."""
        with self._changed:
            while True:
                pause_s = 0.0 if self._hurry else self._not_before_s - time.monotonic()
                if self._closing:
                    return None
                if self._lines and pause_s <= 0:
                    return self._take()
                if self._lines:
                    self._changed.wait(pause_s)
                else:
                    self._idle = True
                    self._changed.notify_all()
                    self._wait_for_lines()

    def _wait_for_lines(self) -> None:
        """Waits until there is a line, or one that is held is due.

        Whoever holds lines has a lock that is taken before ours.
        """
        woken = self._woken
        self._changed.release()
        try:
            due_s = self._due_s()
            now_s = time.monotonic()
            if due_s is not None and due_s <= now_s:
                self._tell_held(now_s)
                due_s = self._due_s()
        finally:
            self._changed.acquire()
        if not self._lines and not self._closing and woken == self._woken:
            self._changed.wait(None if due_s is None else max(0.0, due_s - now_s))

    def _take(self) -> list[bytes]:
        batch = [self._lines.popleft()]
        size = len(batch[0])
        while self._lines and size + len(self._lines[0]) <= BATCH_BYTES:
            batch.append(self._lines.popleft())
            size += len(batch[-1])
        self._bytes -= size
        return batch

    def _deliver(self, batch: Sequence[bytes]) -> None:
        telling = self._lost
        missing = telling - self._told
        head = (b"\n" if self._mid_line else b"") + (self._tell(missing) if missing else b"")
        data = head + b"".join(batch)
        written = self._write_all(data)
        if written:
            self._mid_line = data[written - 1 : written] != b"\n"
        if written >= len(head):
            self._told = telling
        if written < len(data):
            end = len(head)
            ends = [end := end + len(line) for line in batch]
            with self._changed:
                self._lost += sum(end > written for end in ends)
                self._not_before_s = time.monotonic() + RETRY_S

    def _write_all(self, data: bytes) -> int:
        """Writes data, and returns how many bytes were written: all of them, or those before a failure."""
        left = memoryview(data)
        try:
            while left:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:  # somebody who shares it made it non-blocking
                    self._wait_for_room()
        except OSError:  # nobody reads any more, a full disk, a terminal that is gone: counted by the caller
            pass
        return len(data) - len(left)

    def _wait_for_room(self) -> None:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        poll.poll()


class SinkStream(io.TextIOBase):
    """`sys.stderr` for a process whose log is a sink: what the interpreter says joins the lines, in their order."""

    def __init__(self, sink: LogSink, *, terminal: bool) -> None:
        """Writes to `sink`; `terminal` is what `isatty` returns."""
        self._sink = sink
        self._terminal = terminal
        self._unfinished = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Returns the encoding of the bytes that are written."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """Returns what becomes of text that has no such bytes."""
        return "backslashreplace"

    def isatty(self) -> bool:
        """Returns whether a person reads it."""
        return self._terminal

    def writable(self) -> bool:
        """Returns True: it can always be written to."""
        return True

    def write(self, text: str) -> int:
        """Queues the lines that are finished by `text`, and an unfinished one that is long.

        Returns the length of `text`.
        """
        *lines, self._unfinished = (self._unfinished + text).split("\n")
        for line in lines:
            self._sink.write(f"{line}\n".encode(errors="backslashreplace"))
        if len(self._unfinished) > MAX_UNFINISHED_CHARS:
            self.flush()
        return len(text)

    def flush(self) -> None:
        """Queues the text that is no finished line."""
        text, self._unfinished = self._unfinished, ""
        if text:
            self._sink.write(text.encode(errors="backslashreplace"))
