"""Streams whose user has gone: they end once nobody has read any of their bytes for long (PROTO 5.12)."""

from __future__ import annotations

from tunnel.core.streams.stream import CoreStream

LOOKS = 4
"""How often a stream is looked at within the time that it is given. It ends so much later at most, and thousands are
looked at together.
"""


class Orphans:
    """Streams that one end has left: what was sent before still is to be read, by the reader that is left.

    There are two kinds. One's own user has gone, so that its bytes wait for the peer's reader; the other's peer has
    told that nobody reads there any more, so that what came from it waits for the reader here.

    One that makes progress, however slowly, goes on: a printer takes its time. Progress of the peer's reader shows as
    credit, which comes for half a window at once; that of a local one when it is done with all it took.
    """

    __slots__ = ("_after_s", "_waiting", "due_s")

    def __init__(self, after_s: float) -> None:
        """Gives up a stream after `after_s` seconds without progress."""
        self._after_s = after_s
        self._waiting: dict[CoreStream, tuple[float, int]] = {}
        """Since when each is seen without progress, and how far it was then."""
        self.due_s: float | None = None
        """When `given_up` must be asked, on the session's clock; None when no stream is left by its user."""

    def add(self, stream: CoreStream, now: float) -> None:
        """Takes in a stream whose user has gone; nothing happens when it is here already."""
        self._waiting.setdefault(stream, (now, _progress(stream)))
        if self.due_s is None:
            self.due_s = now + self._after_s / LOOKS

    def remove(self, stream: CoreStream) -> None:
        """Forgets a stream that has ended, if it is here."""
        if self._waiting.pop(stream, None) is not None and not self._waiting:
            self.due_s = None

    def given_up(self, now: float) -> list[CoreStream]:
        """Returns the streams that made no progress for too long; the caller must end them."""
        if self.due_s is None or now < self.due_s:
            return []
        over: list[CoreStream] = []
        for stream, (since_s, before) in self._waiting.items():
            if (progress := _progress(stream)) != before or not _is_stuck(stream):
                self._waiting[stream] = now, progress
            elif now - since_s >= self._after_s:
                over.append(stream)
        self.due_s = now + self._after_s / LOOKS
        return over


def _progress(stream: CoreStream) -> int:
    return stream.send.offset + stream.receive.window.consumed


def _is_stuck(stream: CoreStream) -> bool:
    """Returns whether bytes wait for a reader, or for credit: a stream that has nothing to carry is not stuck."""
    return stream.send.queued > 0 or stream.receive.waiting_bytes > 0
