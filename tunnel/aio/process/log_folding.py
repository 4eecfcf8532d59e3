"""Folds log lines that say the same again and again: a webhook that is refused 100 times in a second is one cause.

The first line goes out at once. Those that are equal to it within the next ten seconds are counted, and told by one
line with the fields of the last of them. Records of the audit log do not come through here, so that none is folded.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import structlog

from tunnel.core.wire.spoken import spoken_s

WINDOW_S = 10.0
"""Seconds for which equal lines are counted. What goes on is told so often."""
MAX_KINDS = 256
"""How many lines are watched for equal ones, at 1 to 2 kB each. Beyond it the oldest is forgotten, and not folded."""
VOLATILE = frozenset({"attempt", "peer", "stream", "trace_id"})
"""The fields that differ between lines that say the same: whose attempt it was, not what went wrong."""
_NEVER = frozenset({"debug"})
"""The levels that are never folded: whoever asks for these wants every line."""

Event = MutableMapping[str, Any]


@dataclass(slots=True)
class _Kind:
    """A line that went out, and how often it came again."""

    until_s: float
    """The end of its window, in monotonic time."""
    method: str
    repeated: int = 0
    last: Event | None = None


class Folding:
    """A processor of structlog, for any thread, which also tells of the lines that it held back."""

    def __init__(
        self,
        tell: Callable[[str, Event], None],
        wake: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins without any lines.

        Args:
            tell: renders and writes a line that stands for several: the name of its level, and its fields.
            wake: is called when `due_s` has become earlier.
            clock: monotonic time, in seconds.
        """
        self._tell = tell
        self._wake = wake
        self._clock = clock
        # Reentrant: the garbage collector may run a finalizer that logs inside of a call.
        self._lock = threading.RLock()
        self._kinds: OrderedDict[Any, _Kind] = OrderedDict()
        self._waiting = 0
        """How many kinds have something to tell."""

    def __call__(self, _logger: object, method: str, event: Event) -> Event:
        """Lets a line pass, or counts it.

        Raises:
            structlog.DropEvent: it was counted.
        """
        if event.pop("each", False) or method in _NEVER:
            return event
        key, now_s = _key(method, event), self._clock()
        with self._lock:
            self.flush(now_s)
            kind = self._kinds.get(key)
            if kind is None:
                self._kinds[key] = _Kind(now_s + WINDOW_S, method)
                while len(self._kinds) > MAX_KINDS:
                    self._end(self._kinds.popitem(last=False)[1])
                return event
            kind.repeated += 1
            kind.last = {name: value for name, value in event.items() if name != "exc_info"}  # the first line had it
            if kind.repeated == 1:
                self._waiting += 1
                self._wake()
        raise structlog.DropEvent

    def due_s(self) -> float | None:
        """Returns when `flush` has something to tell next, on its clock; None when nothing is held back."""
        with self._lock:
            if not self._waiting:
                return None
            return min(kind.until_s for kind in self._kinds.values() if kind.repeated)

    def flush(self, now_s: float | None = None) -> None:
        """Tells of all lines whose window is over at `now_s`; with None of all, since the process ends."""
        with self._lock:
            while self._kinds:
                key, kind = next(iter(self._kinds.items()))  # windows are equally long, so the oldest ends first
                if now_s is not None and now_s < kind.until_s:
                    return
                del self._kinds[key]
                if kind.repeated and now_s is not None:
                    # It goes on as it seems: what comes within the next window is counted at once.
                    self._kinds[key] = _Kind(now_s + WINDOW_S, kind.method)
                self._end(kind)

    def _end(self, kind: _Kind) -> None:
        if kind.last is None:
            return
        self._waiting -= 1
        fields = dict(kind.last)
        often = "once" if kind.repeated == 1 else f"{kind.repeated} times"
        fields["event"] = f"{fields['event']}: repeated {often} in {spoken_s(WINDOW_S)}"
        fields["repeated"] = kind.repeated
        self._tell(kind.method, fields)


def _key(method: str, event: Event) -> Any:
    """Returns what equal lines have in common."""
    fields = tuple(
        (name, _cause(value) if name == "exc_info" else value) for name, value in event.items() if name not in VOLATILE
    )
    try:
        hash(fields)
    except TypeError:  # a list among the values
        fields = tuple((name, repr(value)) for name, value in fields)
    return method, fields


def _cause(exc_info: Any) -> str:
    """Returns an exception in words, or "" for none: itself it would keep its frames, and all in them."""
    error = exc_info if isinstance(exc_info, BaseException) else sys.exc_info()[1] if exc_info else None
    return "" if error is None else f"{type(error).__name__}: {error}"[:1000]
