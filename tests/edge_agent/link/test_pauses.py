"""When it is dialled again: what passes by itself soon, what somebody has to mend seldom."""

from __future__ import annotations

import asyncio

import pytest

from edge_agent.link.pauses import FIRST_FOR_GOOD_S, MAX_FOR_GOOD_S, Pauses, is_for_good
from tests.support.waits import sooner_than
from tunnel.aio.carriers.carrier import CarrierLost
from tunnel.core.wire import faults
from tunnel.core.wire.errors import Code, SessionRefused

TURNED_AWAY = SessionRefused("agent box-7 was revoked", Code.IDENTITY_REJECTED)


@pytest.fixture(autouse=True)
def dice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shortest wait of each range."""
    monkeypatch.setattr("random.random", lambda: 0.0)


async def test_a_box_that_was_turned_away_comes_back_in_minutes() -> None:
    pauses, waits = Pauses(), []
    for _ in range(8):
        pauses.failed(TURNED_AWAY)
        waits.append(pauses.next_s())
    assert waits[0] == FIRST_FOR_GOOD_S / 1.5
    assert waits[:4] == [10.0, 20.0, 40.0, 80.0]
    assert waits[-1] == MAX_FOR_GOOD_S / 1.5
    assert sum(wait <= 17 for wait in waits) == 1


async def test_another_fault_in_between_or_a_link_begins_anew() -> None:
    pauses = Pauses()
    for _ in range(4):
        pauses.failed(TURNED_AWAY)
    pauses.failed(CarrierLost("connection refused", faults.SERVER_UNREACHABLE))
    assert pauses.next_s() == 0.0
    pauses.failed(TURNED_AWAY)
    assert pauses.next_s() == 10.0
    pauses.connected_for(60)
    assert pauses.next_s() == 0.0


@pytest.mark.parametrize(
    ("error", "for_good"),
    [
        (TURNED_AWAY, True),
        (SessionRefused("come back", Code.IDENTITY_REJECTED, 5.0), False),  # the server expects another end
        (SessionRefused("two of them", Code.REPLACED, 60.0), False),
        (CarrierLost("no name", faults.SERVER_NAME_NOT_FOUND), False),
        (CarrierLost("a captive portal", faults.SERVER_NOT_TRUSTED), False),
        (CarrierLost("an old card", faults.BOX_NOT_ACCEPTED, refused=True), True),
    ],
)
def test_what_no_waiting_removes(error: Exception, for_good: bool) -> None:
    assert is_for_good(error) is for_good


async def test_what_was_mended_here_is_tried_at_once() -> None:
    pauses = Pauses()
    pauses.failed(TURNED_AWAY)
    async with asyncio.TaskGroup() as tasks:
        with sooner_than(60, "dialling again"):
            waiting = tasks.create_task(pauses.wait(600))
            await asyncio.sleep(0)
            pauses.wake()
            await waiting
    assert pauses.next_s() == 0.0
    await pauses.wait(0.01)  # woken once
