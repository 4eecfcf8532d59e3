"""What stands on a caller: looked at again when a record changes or time is up, ended in pieces, and forgotten."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from cloud_server.trust import standing as module
from cloud_server.trust.authenticator import LoginRefused
from cloud_server.trust.caller import Caller
from cloud_server.trust.standing import MAX_DEAD, Standing
from tests.support.waits import eventually, scaled_s
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.faults import CREDENTIAL_EXPIRED, RECORD_UNREADABLE, USER_REVOKED, Fault
from tunnel.core.wire.principal import Principal, PrincipalKind

LOCAL = Caller(Principal(kind=PrincipalKind.LOCAL_PROCESS, name="uid:0", proof="uid:0"))


def user(name: str, proof: str = "token:1", until: datetime | None = None, groups: tuple[str, ...] = ()) -> Caller:
    return Caller(Principal(kind=PrincipalKind.USER, name=name, proof=proof, groups=groups), until)


class Office:
    """What is known of users."""

    def __init__(self) -> None:
        self.refused: dict[str, Fault] = {}
        self.groups: dict[str, tuple[str, ...]] = {}
        self.asked: list[str] = []

    def again(self, caller: Caller) -> Caller:
        self.asked.append(caller.name)
        if (fault := self.refused.get(caller.name)) is not None:
            raise LoginRefused(f"{caller.name} is not good", fault)
        if caller.until is not None and datetime.now(UTC) >= caller.until:
            raise LoginRefused(f"{caller.name} is over", CREDENTIAL_EXPIRED)
        groups = self.groups.get(caller.name, caller.principal.groups)
        if groups == caller.principal.groups:
            return caller
        return replace(caller, principal=replace(caller.principal, groups=groups))


async def test_a_loss_ends_what_stands_on_it_and_looks_at_nobody_else() -> None:
    office = Office()
    standing = Standing(office.again)
    lost: list[tuple[str, OpenRefused]] = []
    for name in ("ann", "ann", "bob"):
        standing.hold(user(name), lambda why, name=name: lost.append((name, why)))  # type: ignore[misc]
    standing.hold(LOCAL, lambda why: lost.append(("local", why)))
    office.refused["ann"] = USER_REVOKED
    office.asked.clear()
    standing.changed("ann")
    standing.changed("ann")
    await eventually(lambda: len(lost) == 2)
    assert [(name, why.code, why.fault.code, str(why)) for name, why in lost] == [
        ("ann", Code.STANDING_LOST, "LL4314", "ann is not good")
    ] * 2
    assert office.asked == ["ann"], "once for a credential, however much stands on it"
    assert len(standing) == 2
    with pytest.raises(OpenRefused) as caught:
        standing.hold(user("ann"), lambda _: None)
    assert (caught.value.code, caught.value.fault) == (Code.NOT_ALLOWED, USER_REVOKED)
    assert len(standing) == 2


async def test_what_ends_a_credential_by_itself_is_its_time() -> None:
    standing = Standing(Office().again)
    lost: list[str] = []
    now = datetime.now(UTC)
    standing.hold(user("ann", until=now + timedelta(hours=1)), lambda why: lost.append(f"later {why.fault.code}"))
    standing.hold(user("bob", until=now + timedelta(seconds=0.3)), lambda why: lost.append(f"soon {why.fault.code}"))
    standing.hold(user("eve", until=now + timedelta(seconds=0.2)), lambda why: lost.append("released")).release()
    await eventually(lambda: lost)
    assert lost == ["soon LL4315"]
    assert datetime.now(UTC) >= now + timedelta(seconds=0.3)
    assert len(standing) == 1


async def test_a_record_that_cannot_be_read_takes_nothing_away() -> None:
    office = Office()
    standing = Standing(office.again)
    hold = standing.hold(user("ann"), lambda _: pytest.fail("it was ended"))
    office.refused["ann"] = RECORD_UNREADABLE
    office.asked.clear()
    standing.changed("ann")
    await eventually(lambda: office.asked)
    assert len(standing) == 1
    hold.release()
    hold.release()
    assert len(standing) == 0


async def test_other_groups_are_decided_anew_and_others_are_not() -> None:
    office = Office()
    standing = Standing(office.again)
    decided: list[tuple[str, tuple[str, ...]]] = []
    lost: list[str] = []

    def hold(name: str) -> None:
        def objection(caller: Caller) -> OpenRefused | None:
            decided.append((name, caller.principal.groups))
            return OpenRefused("no", Code.STANDING_LOST) if "ops" not in caller.principal.groups else None

        standing.hold(user(name, groups=("ops",)), lambda _: lost.append(name), objection)

    hold("ann")
    hold("bob")
    office.groups["ann"] = ("ops", "more")
    standing.changed("ann")
    await eventually(lambda: decided)
    office.groups["ann"] = ()
    standing.changed("ann")
    standing.changed("bob")
    await eventually(lambda: lost)
    assert (decided, lost) == ([("ann", ("ops", "more")), ("ann", ())], ["ann"])


async def test_a_change_of_the_rules_is_decided_in_pieces_and_in_each_case_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Others have their turns in between; so do those who lose."""
    monkeypatch.setattr(module, "PIECE_S", 0.0)  # a turn for each
    standing = Standing(Office().again)
    turns = decided = 0
    lost: list[int] = []

    def objection(_caller: Caller) -> OpenRefused | None:
        nonlocal decided
        decided += 1
        return OpenRefused("the rule is gone", Code.STANDING_LOST) if decided % 2 else None

    for number in range(50):
        caller = LOCAL if number < 25 else user(f"user-{number}")
        standing.hold(caller, lambda _, number=number: lost.append(number), objection)  # type: ignore[misc]
    standing.rules_changed()
    standing.rules_changed()
    while decided < 50:
        turns += 1
        assert turns <= 60
        await asyncio.sleep(0)
    assert turns >= 49
    await eventually(lambda: lost == list(range(0, 50, 2)))
    standing.rules_changed()
    await eventually(lambda: decided == 75)


async def test_many_ends_are_spread_over_time_and_few_are_not() -> None:
    office = Office()
    standing = Standing(office.again)
    ended_s: list[float] = []
    loop = asyncio.get_running_loop()

    async def spread(who: str, count: int, per_s: float) -> float:
        ended_s.clear()
        for _ in range(count):
            standing.hold(user(who), lambda _: ended_s.append(loop.time()))
        office.refused[who] = USER_REVOKED
        began_s = loop.time()
        standing.changed(who)
        await eventually(lambda: len(ended_s) == count)
        for number, when_s in enumerate(ended_s):
            assert when_s - began_s >= number / per_s - module.ENDS_EVERY_S - 0.001, number
        return ended_s[-1] - began_s

    await spread("ann", 1000, 1000 / module.ENDS_WITHIN_S)
    assert await spread("bob", 5, module.ENDS_PER_S) < scaled_s(module.ENDS_WITHIN_S / 2)
    assert len(standing) == 0


async def test_what_waits_for_its_end_waits_once_however_often_a_record_changes() -> None:
    office = Office()
    standing = Standing(office.again)
    decided: list[Caller] = []
    lost: list[int] = []
    for number in range(200):
        standing.hold(user("ann"), lambda _, number=number: lost.append(number), decided.append)  # type: ignore[misc]
    office.refused["ann"] = USER_REVOKED
    for _ in range(20):
        standing.changed("ann")
        standing.rules_changed()
        await asyncio.sleep(0)
    assert len(standing._losing) <= 200
    await eventually(lambda: len(lost) == 200)
    assert (len(lost), decided) == (200, [])


async def test_one_that_cannot_be_ended_or_decided_keeps_no_other() -> None:
    office = Office()
    standing = Standing(office.again)
    lost: list[OpenRefused] = []

    def broken(_: object) -> None:
        raise RuntimeError("a bug")

    standing.hold(user("ann"), broken)
    standing.hold(user("ann"), lost.append)
    standing.hold(user("bob"), lost.append, broken)
    office.refused["ann"] = USER_REVOKED
    with capture_logs() as logged:
        standing.changed("ann")
        standing.rules_changed()
        await eventually(lambda: len(lost) == 2 and logged[-1:] and "ended" in logged[-1])
    assert [line["code"] for line in logged if line["log_level"] == "error"] == ["LL6001"] * 2
    assert {str(why) for why in lost} == {"ann is not good", "a fault of the server, whose log says more"}


async def test_credentials_that_nothing_stands_on_are_forgotten() -> None:
    standing = Standing(Office().again)
    later = datetime.now(UTC) + timedelta(hours=12)
    kept = standing.hold(user("kept", until=later), lambda _: None)
    for number in range(20 * MAX_DEAD):
        standing.hold(user(f"user-{number % 7}", f"token:{number}", later), lambda _: None).release()
    assert len(standing._ends) <= MAX_DEAD + 2
    assert (len(standing._credentials), len(standing._of_user)) == (1, 1)
    kept.release()
    assert (len(standing._credentials), len(standing._of_user), len(standing)) == (0, 0, 0)
