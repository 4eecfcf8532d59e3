"""tunnel.core.liveness: silence is asked about, then given up on; a process that stood still asks again first."""

from __future__ import annotations

from tunnel.core.limits import Timing
from tunnel.core.liveness import Liveness, Verdict

TIMING = Timing(suspect_after_s=10.0, dead_after_s=15.0)


def test_silence_is_asked_about_then_given_up_on() -> None:
    liveness = Liveness(TIMING, 100.0, ask_late=False)
    assert liveness.due_s(10.0) == 110.0
    assert liveness.check(109.9, 10.0) is Verdict.WELL
    assert liveness.check(110.0, 10.0) is Verdict.ASK
    assert liveness.due_s(10.0) == 115.0
    assert liveness.check(114.9, 10.0) is Verdict.WELL
    assert liveness.check(115.0, 10.0) is Verdict.DEAD


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


def test_longer_silence_moves_the_question_and_not_what_follows_it() -> None:
    liveness = Liveness(TIMING, 0.0, ask_late=False)
    assert liveness.due_s(33.0) == 33.0
    assert liveness.check(32.9, 33.0) is Verdict.WELL
    assert liveness.check(33.0, 33.0) is Verdict.ASK
    assert liveness.due_s(33.0) == 38.0
    assert liveness.check(38.0, 33.0) is Verdict.DEAD


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
