"""Plays a recording in the terminal, at its own pace or another one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tunnel.core.wire.asciicast import OUTPUT, Event

Clock = Callable[[], float]
Sleep = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a recording is played."""

    speed: float = 1.0
    """The seconds of the recording that pass in one second."""
    idle_limit_s: float | None = None
    """The most seconds of the recording between two events; None for no limit."""


def outputs(events: Iterator[Event]) -> Iterator[str]:
    """Yields the texts that were written, without pauses."""
    return (event.data for event in events if event.kind == OUTPUT)


def play(
    events: Iterator[Event],
    write: Callable[[str], None],
    pace: Pace,
    clock: Clock = time.monotonic,
    sleep: Sleep = time.sleep,
) -> None:
    """Writes the output of a recording, each piece when it is due.

    When it takes long to write or fetch something, the pauses after it are shorter, so that it does not fall behind.

    Args:
        events: the events of the recording.
        write: takes the output.
        pace: how fast it is played.
        clock: returns the time in seconds.
        sleep: waits for so many seconds.
    """
    began_s, at_s, due_s = clock(), 0.0, 0.0
    for event in events:
        pause_s = max(0.0, event.at_s - at_s)
        if pace.idle_limit_s is not None:
            pause_s = min(pause_s, pace.idle_limit_s)
        at_s = max(at_s, event.at_s)
        due_s += pause_s / pace.speed
        if event.kind != OUTPUT:
            continue
        if (wait_s := began_s + due_s - clock()) > 0:
            sleep(wait_s)
        write(event.data)
