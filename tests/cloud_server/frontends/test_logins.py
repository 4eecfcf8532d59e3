"""Guesses are counted, told once a minute, and answered slowly; whoever shows what is good never waits."""

from __future__ import annotations

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from cloud_server.frontends import logins
from cloud_server.frontends.logins import GUESSES, MISSING, RefusedLogins
from cloud_server.trust.authenticator import LoginRefused
from tests.support.doors import Records
from tunnel.aio.process.tasks import TaskOwner
from tunnel.core.wire.faults import CREDENTIAL_EXPIRED, CREDENTIAL_MISSING, CREDENTIAL_UNKNOWN, Fault


async def stays() -> None:
    """The connection of a client that is there."""
    await asyncio.get_running_loop().create_future()


async def goes() -> None:
    """The connection of a client that is gone."""


async def at_once(refused: RefusedLogins, address: str, count: int, fault: Fault = CREDENTIAL_UNKNOWN) -> int:
    """How many of so many are answered at once."""
    tasks, answered = TaskOwner("guesses"), 0

    async def guess() -> None:
        nonlocal answered
        await refused.turn_away("fleet", f"{address}:5000", LoginRefused("no", fault), stays)
        answered += 1

    for one in range(count):
        tasks.spawn(f"guess {one}", guess())
    await asyncio.sleep(0)
    now = answered
    await tasks.aclose()
    return now


async def test_ten_guesses_of_an_address_are_answered_at_once_and_others_pay_nothing() -> None:
    refused = RefusedLogins(Records())
    assert await at_once(refused, "192.0.2.1", 50) == GUESSES.at_once == 10
    assert await at_once(refused, "192.0.2.2", 5) == 5
    assert await at_once(refused, "[2001:db8::1]", 8) == 8
    assert await at_once(refused, "[2001:db8::ffff]", 8) == 2, "a client has a whole /64"
    assert refused.counts == {"fleet": 71}
    assert refused.delayed == 46


async def test_a_first_request_without_a_credential_is_no_guess() -> None:
    refused = RefusedLogins(Records())
    with capture_logs() as lines:
        assert await at_once(refused, "192.0.2.1", 50, CREDENTIAL_MISSING) == 50
        assert lines == []
        assert await at_once(refused, "192.0.2.1", 100, CREDENTIAL_MISSING) == MISSING.at_once - 50
    assert [(line["code"], line["count"]) for line in lines] == [(CREDENTIAL_MISSING.code, 1)]
    assert await at_once(refused, "192.0.2.1", 1) == 1


async def test_a_delayed_answer_comes_and_nobody_is_waited_for_who_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logins, "MAX_DELAY_S", 0.2)
    refused = RefusedLogins(Records())
    await at_once(refused, "192.0.2.1", 30)
    why = LoginRefused("no", CREDENTIAL_EXPIRED)
    started_s = time.monotonic()
    await refused.turn_away("socks", "192.0.2.1:1", why, goes)
    assert time.monotonic() - started_s < 0.15
    await refused.turn_away("socks", "192.0.2.1:1", why, stays)
    assert time.monotonic() - started_s > 0.15


async def test_each_address_is_told_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    refused, now_s = RefusedLogins(Records()), 0.0
    monkeypatch.setattr(refused._minutes, "_clock", lambda: now_s)
    with capture_logs() as lines:
        for now_s in (0.0, 1.0, 59.0, 61.0):  # noqa: B007 - it is the clock
            await at_once(refused, "192.0.2.1", 1)
            await at_once(refused, "192.0.2.2", 2)
    assert [(line["address"], line["code"], line["count"]) for line in lines] == [
        ("192.0.2.1", "LL2040", 1), ("192.0.2.2", "LL2040", 1), ("192.0.2.1", "LL2040", 2), ("192.0.2.2", "LL2040", 5),
    ]  # fmt: skip
