"""What strangers cause is told once a minute for each of them, and nothing is lost of the counts."""

from __future__ import annotations

from collections.abc import Hashable

import pytest

from tunnel.aio.process import minutes
from tunnel.aio.process.minutes import Minutes


class Told:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.lines: list[tuple[Hashable, int]] = []
        self.minutes = Minutes(lambda key, count: self.lines.append((key, count)), lambda: self.now_s)

    def count(self, key: str, at_s: float, times: int = 1) -> None:
        self.now_s = at_s
        for _ in range(times):
            self.minutes.count(key)


def test_one_line_a_minute_with_all_that_came_since() -> None:
    told = Told()
    told.count("a", 0.0, 5)
    told.count("b", 30.0)
    told.count("a", 59.0, 5)
    assert told.lines == [("a", 1), ("b", 1)]
    told.count("a", 60.0)
    assert told.lines[2:] == [("a", 9)], "what came at the 60th second is of the next minute"
    told.count("b", 91.0)
    assert told.lines[3:] == [("b", 1)]
    told.count("c", 120.0)
    assert told.lines[4:] == [("a", 1), ("c", 1)]
    told.count("c", 1000.0)
    assert told.lines[6:] == [("c", 1)]
    assert len(told.minutes) == 1


def test_beyond_a_bound_the_others_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minutes, "MAX_KEYS", 2)
    told = Told()
    for key in "abcdea":
        told.count(key, 0.0)
    assert told.lines == [("a", 1), ("b", 1), (None, 1)]
    told.count("z", 60.0)
    assert told.lines[3:] == [("a", 1), (None, 2), ("z", 1)] or told.lines[3:] == [("a", 1), (None, 2)]
