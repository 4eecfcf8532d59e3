"""Records opens: each is in the audit log before its first byte moves, and its end behind the last. The second of the
chain.
"""

from __future__ import annotations

import time
from typing import Protocol

from cloud_server.opens.live import LiveOpen, LiveOpens
from cloud_server.opens.policed import Opener
from cloud_server.opens.records import OpenRecords
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused


class OpenCounts(Protocol):
    """The counts of what happens to opens. They are called in the event loop, and may neither block nor raise."""

    def answered(self, frontend: str, code: Code, seconds: float) -> None:
        """Counts that an open was answered after so many seconds, with Code.NONE for a stream; or that its client gave
        up.
        """
        ...

    def ended(self, frontend: str, reason: str, seconds: float) -> None:
        """Counts that a stream is over, why, and after how many seconds."""
        ...


class NoCounts:
    """The counts for when nobody wants to know."""

    def answered(self, frontend: str, code: Code, seconds: float) -> None:
        """Does nothing; see OpenCounts."""

    def ended(self, frontend: str, reason: str, seconds: float) -> None:
        """Does nothing; see OpenCounts."""


class Recorded:
    """The opener that writes the records, keeps the table, and tells the counts."""

    def __init__(self, live: LiveOpens, records: OpenRecords, counts: OpenCounts, then: Opener) -> None:
        self._live = live
        self._records = records
        self.counts = counts
        self._then = then

    async def open(self, live: LiveOpen) -> Stream:
        """Records the open, and opens its stream; see Opener."""
        self._records.admit()
        if live.request.early_data:
            (live.agent, live.target), live.rule = live.permitted[0]
            self._records.opened(live)
        stream = await self._then.open(live)
        self.opened(live, stream)
        return stream

    def admit(self) -> None:
        """Returns when an open may go on; see OpenRecords.

        Raises:
            AuditUnavailable: the open could not be recorded, and that is a must.
        """
        self._records.admit()

    def opened(self, live: LiveOpen, stream: Stream) -> None:
        """Records that an open has this stream now, of which no byte was read yet, and counts it. Records its end when
        that comes.
        """
        live.stream = stream
        if not live.recorded:
            self._records.opened(live)
        self.counts.answered(live.request.frontend, Code.NONE, time.monotonic() - live.started_s)
        self._live.opened(live)
        stream.when_ended(lambda: self._ended(live, stream))
        if live.ended_by is not None:  # while the answer was on its way
            stream.abort(live.ended_by.code, str(live.ended_by))

    def refused(self, live: LiveOpen, refused: OpenRefused) -> None:
        """Records and counts that nothing was opened, and why."""
        self._live.over(live)
        self._records.refused(live, refused)
        self.counts.answered(live.request.frontend, refused.code, time.monotonic() - live.started_s)

    # Internal

    def _ended(self, live: LiveOpen, stream: Stream) -> None:
        self._live.over(live)
        self._records.ended(live)
        reason = "closed" if stream.error is None else stream.error.code.label
        self.counts.ended(live.request.frontend, reason, time.monotonic() - live.started_s)
