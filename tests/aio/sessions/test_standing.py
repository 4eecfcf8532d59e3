"""How sessions stand, for systemd: to whom they are linked, and whether anybody looks after them."""

from __future__ import annotations

from typing import cast

import pytest

from tunnel.aio.sessions.session import TunnelSession
from tunnel.aio.sessions.standing import LATE_S, LOOKED_AT, linked, stuck


class Core:
    def __init__(self, late_s: float) -> None:
        self._late_s = late_s

    def overdue_s(self, _now: float) -> float:
        return self._late_s


class Standing:
    def __init__(self, peer: str, *, attached: bool = True, late_s: float = 0.0) -> None:
        self.peer, self.attached, self.core = peer, attached, Core(late_s)

    def now(self) -> float:
        return 0.0


def sessions(*made: Standing) -> list[TunnelSession]:
    return [cast("TunnelSession", one) for one in made]


@pytest.mark.parametrize(
    ("made", "line"),
    [
        ([], "no link to the cloud; the log says why"),
        ([Standing("a:1", attached=False)], "no link to the cloud; the log says why"),
        ([Standing("a:1"), Standing("b:1"), Standing("a:1")], "linked to a:1, b:1"),
    ],
)
def test_to_whom(made: list[Standing], line: str) -> None:
    assert linked(sessions(*made)) == line


def test_one_that_nobody_looks_after_is_named() -> None:
    assert stuck(sessions(Standing("box-6"), Standing("box-7", late_s=LATE_S))) == ""
    said = stuck(sessions(Standing("box-6"), Standing("box-7", late_s=LATE_S + 2)))
    assert said == "the timer of the session with box-7 is 12 s late"


def test_of_thousands_some_are_looked_at() -> None:
    many = [Standing(f"box-{number}", late_s=60) for number in range(100 * LOOKED_AT)]
    assert "60 s late" in stuck(sessions(*many))
