"""What is held to the configuration: what ends a block, and what the one who runs it sees."""

from __future__ import annotations

import asyncio

import pytest

from tunnel.aio.exits.served import Served, not_allowed_any_more
from tunnel.core.wire.errors import Code, OpenRefused, StreamReset


class Rule:
    """Allows what is served, until it is taken away."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.allows = True
        self.told: list[OpenRefused] = []

    def objection(self) -> OpenRefused | None:
        return None if self.allows else not_allowed_any_more(self.what)


async def test_a_block_ends_with_the_objection_and_its_task_goes_on() -> None:
    served, rule, begun = Served(), Rule("web"), asyncio.Event()

    async def serve() -> str:
        try:
            with served.hold(rule.objection, rule.told.append):
                begun.set()
                await asyncio.Event().wait()
        except OpenRefused as refusal:
            await asyncio.sleep(0)  # it is not cancelled any more
            return str(refusal)
        return "not ended"

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(serve())
        await begun.wait()
        assert served.review() == 0
        rule.allows = False
        assert (served.review(), served.review()) == (1, 0)
        assert [refusal.code for refusal in rule.told] == [Code.NOT_ALLOWED]  # before the block has ended
    assert task.result() == "web is not allowed any more at this end"
    assert served.review() == 0


async def test_a_block_within_another_says_its_own_reason_and_the_outer_one_its_own() -> None:
    served, outer, inner, begun = Served(), Rule("kubelet"), Rule("port"), asyncio.Event()
    seen: list[str] = []

    async def serve_inner() -> None:
        try:
            with served.hold(inner.objection):
                begun.set()
                await asyncio.Event().wait()
        except OpenRefused as refusal:
            seen.append(str(refusal))

    async def serve() -> None:
        try:
            with served.hold(outer.objection):
                await serve_inner()
        except OpenRefused as refusal:
            seen.append(str(refusal))
        await asyncio.sleep(0)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(serve())
        await begun.wait()
        outer.allows = inner.allows = False
        assert served.review() == 2
    assert seen == [f"{what} is not allowed any more at this end" for what in ("port", "kubelet")]


async def test_the_objection_takes_the_place_of_what_it_leads_to() -> None:
    """Who tells the other side ends the stream, and whoever uses that sees an error of its own."""
    served, rule, begun = Served(), Rule("web"), asyncio.Event()

    async def use() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise StreamReset("reset by this side")

    async def serve() -> BaseException | None:
        try:
            with served.hold(rule.objection):
                await use()
        except OpenRefused as refusal:
            await asyncio.sleep(0)
            return refusal.__cause__
        return None

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(serve())
        await begun.wait()
        rule.allows = False
        served.review()
    assert isinstance(task.result(), StreamReset)


@pytest.mark.parametrize("error", [StreamReset("by the peer"), ValueError(), asyncio.CancelledError()])
async def test_what_ends_by_itself_says_so(error: BaseException) -> None:
    served, rule = Served(), Rule("web")
    with pytest.raises(type(error)), served.hold(rule.objection):
        raise error
    rule.allows = False
    assert served.review() == 0
