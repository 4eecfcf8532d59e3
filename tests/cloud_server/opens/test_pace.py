"""A user opens so many connections a second: a little more waits, much more is refused, and costs nobody else."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from cloud_server.opens.pace import MAX_WAIT_S, OpenPace
from cloud_server.trust.caller import Caller
from tunnel.aio.process.tasks import TaskOwner
from tunnel.core.path.rate import Rate
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.faults import OPENS_TOO_FAST
from tunnel.core.wire.principal import Principal, PrincipalKind


def caller(name: str, kind: PrincipalKind = PrincipalKind.USER) -> Caller:
    return Caller(Principal(kind=kind, name=name))


async def at_once(pace: OpenPace, who: Caller, count: int, deadline_s: float = 10.0) -> tuple[int, int, int]:
    """How many of so many opens go on at once, wait, and are refused."""
    tasks, answers = TaskOwner("opens"), list[bool]()

    async def ask() -> None:
        try:
            await pace.turn(who, deadline_s)
        except OpenRefused:
            answers.append(False)
        else:
            answers.append(True)

    for one in range(count):
        tasks.spawn(f"open {one}", ask())
    await asyncio.sleep(0)
    now, refused = answers.count(True), answers.count(False)
    await tasks.aclose()
    return now, count - now - refused, refused


async def test_a_little_more_waits_and_much_more_is_refused() -> None:
    rate = Rate(10.0, 5)
    assert await at_once(OpenPace(rate), caller("ann"), 100) == (5, round(10 * MAX_WAIT_S), 75)
    assert await at_once(OpenPace(rate), caller("ann"), 100, deadline_s=1.0) == (5, 5, 90), "half of the deadline"


async def test_who_waits_goes_on() -> None:
    pace = OpenPace(Rate(10.0, 1))
    started_s = time.monotonic()
    for _ in range(3):
        await pace.turn(caller("ann"), 10.0)
    assert time.monotonic() - started_s > 0.09, "event loops wake up to a millisecond early"


async def test_the_refusal_says_who_and_how_much() -> None:
    pace = OpenPace(Rate(0.25, 1))
    await pace.turn(caller("ann"), 10.0)
    with pytest.raises(OpenRefused) as caught:
        await pace.turn(caller("ann"), 10.0)
    assert str(caught.value) == "ann opens connections too fast: 0.25 a second are allowed for long"
    assert (caught.value.code, caught.value.fault) == (Code.LIMIT_EXCEEDED, OPENS_TOO_FAST)
    await pace.turn(caller("bob"), 10.0)


async def test_whoever_acts_as_others_pays_and_those_nobody_asks_do_not() -> None:
    pace, ann = OpenPace(Rate(0.1, 2)), caller("ann")
    for name in ("bob", "eve"):
        await pace.turn(replace(caller(name), by=ann.principal), 10.0)
    with pytest.raises(OpenRefused, match="ann opens"):
        await pace.turn(replace(caller("joe"), by=ann.principal), 10.0)
    await pace.turn(caller("bob"), 10.0)
    for kind in (PrincipalKind.STATIC_FORWARD, PrincipalKind.KUBE_APISERVER, PrincipalKind.SERVER):
        assert await at_once(pace, caller("x", kind), 50) == (50, 0, 0)


async def test_another_rate_counts_at_once() -> None:
    pace = OpenPace(Rate(1.0, 1))
    pace.use(Rate(1.0, 10))
    assert (await at_once(pace, caller("ann"), 20))[0] == 10
