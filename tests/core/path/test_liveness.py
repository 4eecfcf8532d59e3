"""tunnel.core.path.liveness: silence is asked about, then given up on; a process that stood still asks again first."""

from __future__ import annotations

import pytest

from tunnel.core.path.liveness import Liveness, Verdict
from tunnel.core.wire.limits import Timing

TIMING = Timing(suspect_after_s=10.0, dead_after_s=15.0)


@pytest.mark.parametrize("silence_s", [10.0, 33.0])
def test_silence_is_asked_about_then_given_up_on(silence_s: float) -> None:
    liveness = Liveness(TIMING, 100.0, ask_late=False)
    asked_s = 100.0 + silence_s  # a longer silence moves the question, and not what follows it
    assert liveness.due_s(silence_s) == asked_s
    assert liveness.check(asked_s - 0.1, silence_s) is Verdict.WELL
    assert liveness.check(asked_s, silence_s) is Verdict.ASK
    assert liveness.due_s(silence_s) == asked_s + 5.0
    assert liveness.check(asked_s + 4.9, silence_s) is Verdict.WELL
    assert liveness.check(asked_s + 5.0, silence_s) is Verdict.DEAD


def test_any_message_is_life() -> None:
    liveness = Liveness(TIMING, 0.0, ask_late=False)
    liveness.check(10.0, 10.0)
    liveness.heard(14.0)
    assert not liveness.suspect
    assert liveness.due_s(10.0) == 24.0
    assert liveness.check(15.0, 10.0) is Verdict.WELL


def test_one_side_asks_later_so_that_an_idle_link_carries_one_question() -> None:
    first = Liveness(TIMING, 0.0, ask_late=False)
    second = Liveness(TIMING, 0.0, ask_late=True)
    assert (first.due_s(10.0), second.due_s(10.0)) == (10.0, 11.25)
    second.check(11.25, 10.0)
    assert second.due_s(10.0) == 15.0


def test_process_that_stood_still_asks_before_it_gives_up() -> None:
    liveness = Liveness(TIMING, 0.0, ask_late=False)
    liveness.check(10.0, 10.0)
    assert liveness.check(600.0, 10.0) is Verdict.ASK
    assert liveness.due_s(10.0) == 605.0
    assert liveness.check(605.0, 10.0) is Verdict.DEAD


def test_timer_that_is_a_little_late_is_no_freeze() -> None:
    liveness = Liveness(TIMING, 0.0, ask_late=False)
    liveness.check(11.9, 10.0)
    assert liveness.check(16.9, 10.0) is Verdict.DEAD


def test_silence_that_was_well_before_the_first_stream_is_asked_about_and_not_held_against_the_peer() -> None:
    liveness = Liveness(TIMING, 0.0, ask_late=False)
    assert liveness.check(30.0, 10.0) is Verdict.ASK
    assert liveness.check(34.9, 10.0) is Verdict.WELL
    assert liveness.check(35.0, 10.0) is Verdict.DEAD


def test_shorter_silence_leaves_a_question_its_time() -> None:
    liveness = Liveness(TIMING, 0.0, ask_late=False)
    assert liveness.check(14.0, 14.0) is Verdict.ASK
    assert liveness.check(15.1, 10.0) is Verdict.WELL
    assert liveness.check(19.0, 10.0) is Verdict.DEAD
