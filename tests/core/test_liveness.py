"""tunnel.core.liveness: silence is asked about, then given up on; a process that stood still asks again first."""

from __future__ import annotations

from tunnel.core.limits import Timing
from tunnel.core.liveness import Liveness, Verdict

TIMING = Timing(suspect_after_s=10.0, dead_after_s=15.0)


def test_silence_is_asked_about_then_given_up_on() -> None:
    liveness = Liveness(TIMING, 100.0, ask_late=False)
    assert liveness.due_s == 110.0
    assert liveness.check(109.9) is Verdict.WELL
    assert liveness.check(110.0) is Verdict.ASK
    assert liveness.due_s == 115.0
    assert liveness.check(114.9) is Verdict.WELL
    assert liveness.check(115.0) is Verdict.DEAD


def test_any_message_is_life() -> None:
    liveness = Liveness(TIMING, 0.0, ask_late=False)
    liveness.check(10.0)
    liveness.heard(14.0)
    assert not liveness.suspect
    assert liveness.due_s == 24.0
    assert liveness.check(15.0) is Verdict.WELL


def test_one_side_asks_later_so_that_an_idle_link_carries_one_question() -> None:
    first = Liveness(TIMING, 0.0, ask_late=False)
    second = Liveness(TIMING, 0.0, ask_late=True)
    assert (first.due_s, second.due_s) == (10.0, 11.25)
    second.check(11.25)
    assert second.due_s == 15.0


def test_process_that_stood_still_asks_before_it_gives_up() -> None:
    liveness = Liveness(TIMING, 0.0, ask_late=False)
    liveness.check(10.0)
    assert liveness.check(600.0) is Verdict.ASK
    assert liveness.due_s == 605.0
    assert liveness.check(605.0) is Verdict.DEAD


def test_timer_that_is_a_little_late_is_no_freeze() -> None:
    liveness = Liveness(TIMING, 0.0, ask_late=False)
    liveness.check(11.9)
    assert liveness.check(16.9) is Verdict.DEAD
