"""Who is turned away is told for how long, and the log is told once."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

import cloud_server.agents.refusals as refusals_module
from cloud_server.agents.refusals import FIRST_RETRY_S, MAX_RETRY_S, MENDED_RETRY_S, Refusals
from cloud_server.trust.agents import IdentityRejected
from tunnel.core.wire.errors import Code, RemoteProtocolError, SessionRefused

REVOKED = IdentityRejected("box-7 was revoked")


def test_a_fault_that_lasts_is_asked_for_less_and_less_often_and_told_once() -> None:
    refusals = Refusals()
    with capture_logs() as logs:
        answers = [refusals.answer("box-7", "192.0.2.1:5", REVOKED) for _ in range(5)]
        other = refusals.answer("box-8", "192.0.2.1:6", REVOKED)
    assert [answer.retry_after_s for answer in answers] == [60.0, 120.0, 240.0, 300.0, 300.0]
    assert {(answer.text, answer.code) for answer in answers} == {("box-7 was revoked", Code.IDENTITY_REJECTED)}
    assert (answers[-1].retry_after_s, other.retry_after_s) == (MAX_RETRY_S, FIRST_RETRY_S)
    assert [(log["agent"], log["address"]) for log in logs] == [("box-7", "192.0.2.1:5"), ("box-8", "192.0.2.1:6")]


def test_another_reason_and_a_session_in_between_begin_anew() -> None:
    refusals = Refusals()
    with capture_logs() as logs:
        for _ in range(2):
            refusals.answer("box-7", "", REVOKED)
        other = IdentityRejected("box-7 belongs to another key")
        assert refusals.answer("box-7", "", other).retry_after_s == FIRST_RETRY_S
        refusals.answer("box-7", "", REVOKED)
        refusals.accepted("box-7")
        assert refusals.answer("box-7", "", REVOKED).retry_after_s == FIRST_RETRY_S
    assert [log["reason"][6:] for log in logs] == ["was revoked", "belongs to another key", *["was revoked"] * 2]


def test_the_log_repeats_it_now_and_then_with_the_number(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 1000.0
    monkeypatch.setattr("cloud_server.agents.refusals.time.monotonic", lambda: now_s)
    refusals = Refusals()
    with capture_logs() as logs:
        for _ in range(4):
            refusals.answer("box-7", "", REVOKED)
        now_s += refusals_module.TELL_EVERY_S
        refusals.answer("box-7", "", REVOKED)
    assert [log.get("times") for log in logs] == [None, 4]


def test_what_a_command_on_the_server_mends_is_asked_for_soon() -> None:
    refusals = Refusals()
    pinned = IdentityRejected("box-7 belongs to another key", mended_here=True)
    assert [refusals.answer("box-7", "", pinned).retry_after_s for _ in range(3)] == [MENDED_RETRY_S] * 3


def test_a_passing_fault_is_answered_as_it_is_and_told_each_time() -> None:
    refusals = Refusals()
    busy = SessionRefused("the server is stopping", Code.SHUTTING_DOWN, 1.0)
    with capture_logs() as logs:
        assert [refusals.answer("box-7", "", busy) for _ in range(2)] == [busy, busy]
        broken = refusals.answer("box-7", "", RemoteProtocolError("no Hello"))
    assert (broken.code, broken.retry_after_s) == (Code.PROTOCOL_ERROR, 0.0)
    assert len(logs) == 3


def test_a_clone_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, str]] = []
    refusals = Refusals(lambda name, address: told.append((name, address)))
    refusals.answer("box-7", "192.0.2.1:5", SessionRefused("another process", Code.REPLACED))
    assert told == [("box-7", "192.0.2.1:5")]


def test_what_is_remembered_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals_module, "MAX_REMEMBERED", 10)
    refusals = Refusals()
    for count in range(100):
        refusals.answer(f"box-{count}", "", REVOKED)
    assert len(refusals._refused) == 10
