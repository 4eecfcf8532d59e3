"""The audit log of a daemon: who did what, in JSON lines with a sequence number.

Whoever records only appends to a bounded queue; a thread writes. While nothing can be written, records wait in the
queue, and beyond its bound they are lost: how many, and which, stands in a `lost` record where they are missing.

Fields that mean the same everywhere:

- `seq` counts the records of one process from 1, lost ones too, so that a gap shows. `time` is in UTC.
- `trace_id` is the same in all records and log lines about one connection, on the server and on the box.
- `bytes_to_agent` went from the cloud's side to the box, `bytes_from_agent` the other way, whoever opened the
  connection and whichever of the two daemons records it.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter, deque
from collections.abc import Hashable
from datetime import UTC, datetime
from typing import Literal, Protocol

import orjson
import structlog

from tunnel.aio.operate.audit_file import STANDARD_OUTPUT, AuditFile
from tunnel.aio.operate.audit_folding import Folding
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.faults import AUDIT_NOT_WRITTEN

OnFailure = Literal["refuse", "alarm"]
"""What is done while records cannot be written: nothing new is let in ("refuse"), or it is, and people are told
("alarm").
"""

MAX_QUEUED_BYTES = 4 * 1024 * 1024
"""The most bytes that wait to be written: some 10,000 records, of which each connection makes two."""
ADMITTED_BYTES = MAX_QUEUED_BYTES // 2
"""With "refuse", nothing is let in while more bytes than this wait: the ends of what runs need the rest."""
STUCK_S = 5.0
"""After so many seconds without any progress a reader counts as one that has stopped."""
RETRY_S = 1.0
"""The pause after a write that failed, in seconds."""
LINGER_S = 0.02
"""How many seconds the thread collects records before the next write while they keep coming: each wake-up of it takes
the interpreter away from the event loop. `kill -9` loses no more than what was recorded in that time.
"""
NOTE_BYTES = 4096
"""The room that must be free before a `lost` record is queued, lest there be one behind each record that fits."""
BATCH_BYTES = 64 * 1024
CLOSE_S = 1.0
"""Seconds that the end of a daemon may wait for the last records."""
_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z

_log = structlog.get_logger("audit_log")


class AuditUnavailable(OpenRefused):
    """Nothing is let in, since it could not be recorded."""

    def __init__(self, text: str) -> None:
        super().__init__(text, Code.LIMIT_EXCEEDED, AUDIT_NOT_WRITTEN)


class Audit(Protocol):
    """A place that takes records. It is called from the thread of the event loop; it never blocks and never fails."""

    def record(self, event: str, **fields: object) -> None:
        """Takes one record."""
        ...

    def record_folded(self, event: str, key: Hashable, **fields: object) -> None:
        """Takes a record of something that strangers can make happen as often as they like.

        The first with a key is written at once, and those that follow within the next seconds as one, with `count`.
        """
        ...

    def admit(self) -> None:
        """Checks that something may begin that must be recorded.

        Raises:
            AuditUnavailable: it may not, since records cannot be written and are a must.
        """
        ...


class AuditLog:
    """A bounded queue of records, and the thread that writes them to one destination."""

    def __init__(
        self, file: str = STANDARD_OUTPUT, on_failure: OnFailure = "alarm", max_bytes: int = MAX_QUEUED_BYTES
    ) -> None:
        """Begins to write. A file that cannot be opened is a fault that `fault` tells of, and raises nothing.

        Args:
            file: the path of a file or of a named pipe, or "-" for standard output.
            on_failure: what `admit` says while records cannot be written.
            max_bytes: how many bytes may wait.
        """
        self._destination = file
        self._file = AuditFile(file)
        self._next_file: AuditFile | None = None
        """Takes the place of the current file before the next record; None when it stays."""
        self._on_failure = on_failure
        self._max_bytes = max_bytes
        # Reentrant: the garbage collector may run a finalizer that records inside of `record`.
        self._changed = threading.Condition(threading.RLock())
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self._seq = 0
        self._lost = 0
        self._missing: Counter[str] = Counter()
        """How many records of each event were lost since the last `lost` record."""
        self._progress_s = time.monotonic()
        """When the queue began to fill, or something of it was taken last, in monotonic time."""
        self._error = ""
        self._told = False
        """Whether it was logged that nothing can be written."""
        self._idle = False
        """Whether the thread waits to be woken."""
        self._hurry = False
        """Whether somebody waits for the end of the queue: the next pause is skipped then."""
        self._closing = False
        self._reopen = False
        self._written = 0
        """How many bytes of the first line are written already."""
        self._folding = Folding(self.record)
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    # Public

    def record(self, event: str, **fields: object) -> None:
        """Queues one record, to which `seq`, `time` and `event` are added.

        It never blocks and never fails; from any thread.
        """
        with self._changed:
            if self._missing and self._bytes + NOTE_BYTES <= self._max_bytes:
                self._note_what_is_missing()
            self._seq += 1
            line = _line(self._seq, event, fields)
            if self._missing or self._bytes + len(line) > self._max_bytes:
                self._lose(event)
            else:
                self._append(line)

    def record_folded(self, event: str, key: Hashable, **fields: object) -> None:
        """Takes a record that is folded; see `Audit.record_folded`. It is called from the thread of an event loop."""
        self._folding.record(event, key, fields)

    def admit(self) -> None:
        """Checks that something may begin that must be recorded; with "alarm" it always may.

        Raises:
            AuditUnavailable: records cannot be written, or too many wait already.
        """
        if self._on_failure == "alarm":
            return
        fault = self.fault
        if not fault and self._bytes > min(ADMITTED_BYTES, self._max_bytes // 2):
            fault = f"{self._file.name} takes audit records too slowly"
        if fault:
            raise AuditUnavailable(f"nothing is let in that cannot be recorded: {fault}")

    @property
    def fault(self) -> str:
        """Returns why records cannot be written now, in words for people; empty when they can."""
        if self._error:
            return f"the audit log {self._file.name} cannot be written: {self._error}"
        if self._bytes and time.monotonic() - self._progress_s > STUCK_S:
            # Without the time that it took so far: whoever tells of faults tells of each new text.
            text = f"has taken nothing for more than {STUCK_S:.0f} s"
            return f"the audit log {self._file.name} {text}: its reader has stopped"
        return ""

    @property
    def refuses(self) -> bool:
        """Returns whether nothing is let in while records cannot be written."""
        return self._on_failure == "refuse"

    @property
    def lost(self) -> int:
        """Returns how many records were lost so far."""
        return self._lost

    @property
    def queued_bytes(self) -> int:
        """Returns how many bytes wait to be written."""
        return self._bytes

    def use(self, file: str, on_failure: OnFailure) -> None:
        """Writes to `file` from now on, if that is another destination; what waits goes there, too."""
        with self._changed:
            self._on_failure = on_failure
            if file != self._destination:
                self._destination = file
                self._next_file = AuditFile(file)
                self._reopen = True
                self._wake()

    def reopen(self) -> None:
        """Opens the file anew before the next record, which a rotation by SIGHUP asks for."""
        with self._changed:
            self._reopen = True
            self._wake()

    def flush(self, within_s: float) -> bool:
        """Waits until all is written, for at most `within_s` seconds, and returns whether it is. Blocking."""
        with self._changed:
            self._hurry = True
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: not self._lines and not self._missing, within_s)
            finally:
                self._hurry = False

    def close(self, within_s: float = CLOSE_S) -> None:
        """Writes what waits, for at most `within_s` seconds, and ends the thread, unless that is stuck in a write.

        Blocking; an event loop uses `aclose`.
        """
        self._folding.close()
        if not self.flush(within_s):
            _log.error(
                "audit records were not written before the end",
                code=AUDIT_NOT_WRITTEN.code,
                records=len(self._lines),
                file=self._file.name,
            )
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(within_s)
        if not self._thread.is_alive():
            self._file.close()

    async def aclose(self) -> None:
        """Does what `close` does, from an event loop, which does not wait meanwhile."""
        self._folding.close()
        await asyncio.to_thread(self.close)

    # Internal - with the lock held

    def _append(self, line: bytes) -> None:
        if not self._lines:
            self._progress_s = time.monotonic()
        self._lines.append(line)
        self._bytes += len(line)
        self._wake()

    def _wake(self) -> None:
        if self._idle:
            self._idle = False
            self._changed.notify_all()

    def _lose(self, event: str) -> None:
        self._missing[event] += 1
        self._lost += 1
        self._tell(self.fault or f"{self._file.name} takes them too slowly")

    def _note_what_is_missing(self) -> None:
        self._seq += 1
        records = self._missing.total()
        about = {"records": records, "first_seq": self._seq - records, "last_seq": self._seq - 1}
        self._append(_line(self._seq, "lost", {**about, "events": dict(self._missing)}))
        self._missing.clear()

    # Internal - the thread

    def _run(self) -> None:
        while True:
            try:
                self._write_once()
            except OSError as error:
                self._error = error.strerror or str(error)
                self._tell(self._error)
                with self._changed:
                    self._pause(RETRY_S)
            if not self._wait():
                return

    def _write_once(self) -> None:
        """Writes some of what is queued, if anything is."""
        if self._reopen:
            self._reopen = False
            self._file.close()
            if self._next_file is not None:
                self._file, self._next_file = self._next_file, None
                self._written = 0
        if self._file.follow() or (self._written and self._file.was_emptied()):
            self._written = 0
        data = self._batch()
        if not data:
            self._writable()
            return
        taken = self._file.write(data)
        if taken:
            self._took(taken)
        elif self.fault:
            self._tell(self.fault)

    def _batch(self) -> bytes:
        with self._changed:
            if not self._lines and self._missing:
                self._note_what_is_missing()
            size, batch = 0, []
            for line in self._lines:
                batch.append(line)
                size += len(line)
                if size >= BATCH_BYTES:
                    break
        return b"".join(batch)[self._written :]

    def _took(self, taken: int) -> None:
        with self._changed:
            taken += self._written
            while self._lines and len(self._lines[0]) <= taken:
                line = self._lines.popleft()
                taken -= len(line)
                self._bytes -= len(line)
            self._written = taken
            self._progress_s = time.monotonic()
            if not self._lines:
                self._changed.notify_all()
        self._writable()

    def _wait(self) -> bool:
        """Waits until there is something to write; returns False at the end."""
        with self._changed:
            if not self._closing and not self._lines and not self._missing:
                self._pause(LINGER_S)
            while not self._closing and not self._lines and not self._missing and not self._reopen and not self._error:
                self._idle = True
                self._changed.notify_all()
                self._changed.wait()
            self._idle = False
            return not self._closing

    def _pause(self, for_s: float) -> None:
        self._changed.wait_for(lambda: self._hurry or self._closing, for_s)
        self._hurry = False

    def _writable(self) -> None:
        self._error = ""
        if self._told and not self._missing:
            self._told = False
            _log.warning(
                "audit records are written again", code=AUDIT_NOT_WRITTEN.code, file=self._file.name, lost=self._lost
            )

    def _tell(self, reason: str) -> None:
        if not self._told:
            self._told = True
            advice = {"refuse": "nothing new is let in", "alarm": "what runs goes on"}[self._on_failure]
            _log.error(
                "audit records cannot be written",
                code=AUDIT_NOT_WRITTEN.code,
                file=self._file.name,
                reason=reason,
                meanwhile=advice,
            )


def _line(seq: int, event: str, fields: dict[str, object]) -> bytes:
    record = {"seq": seq, "time": datetime.now(UTC), "event": event, **fields}
    try:
        return orjson.dumps(record, default=str, option=_OPTIONS)
    except TypeError:
        # A text that is no Unicode, or a number beyond 64 bits: rare, and never a reason to lose a record.
        return json.dumps(record, default=str).encode() + b"\n"
