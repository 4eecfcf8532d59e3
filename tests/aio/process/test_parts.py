"""Parts that are down, come up, and are told of in moderation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.waits import eventually
from tunnel.aio.process import parts as parts_module
from tunnel.aio.process.parts import PartFailed, Parts
from tunnel.core.path.backoff import Backoff


class Fickle:
    """Opens when nothing is at fault."""

    def __init__(self, fault: BaseException | None = None) -> None:
        self.fault = fault
        self.attempts = 0
        self.open = False

    async def __call__(self) -> None:
        self.attempts += 1
        if self.fault is not None:
            raise self.fault
        self.open = True


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow each other at once."""

    def soon(backoff: Backoff) -> float:
        backoff.attempts += 1
        return 0.001

    monkeypatch.setattr(Backoff, "next_delay", soon)


def told(logs: Sequence[MutableMapping[str, Any]], event: str) -> list[Any]:
    return [log.get("reason", log["part"]) for log in logs if log["event"].startswith(event)]


async def test_one_that_opens_is_not_talked_about() -> None:
    parts, one = Parts(), Fickle()
    with capture_logs() as logs:
        parts.want("socks", one)
        await parts.tried(5)
    assert (parts.up(), parts.faults(), logs, one.attempts) == ({"socks": True}, [], [], 1)
    await parts.aclose()


@pytest.mark.parametrize("fault", [PartFailed("port in use"), OSError("port in use"), ZeroDivisionError()])
async def test_one_that_is_down_takes_no_other_with_it_and_comes_up_later(fault: Exception) -> None:
    parts, good, bad = Parts(), Fickle(), Fickle(fault)
    with capture_logs() as logs:
        parts.want("bad", bad)
        parts.want("good", good)
        await parts.tried(5)
        assert parts.up() == {"bad": False, "good": True}
        (line,) = parts.faults()
        assert line.startswith("bad is down: ")
        assert ("port in use" in line) == (not isinstance(fault, ZeroDivisionError))
        bad.fault = None
        await eventually(lambda: parts.up()["bad"])
    assert parts.faults() == []
    assert told(logs, "a part is up") == ["bad"]
    assert bad.attempts > 1
    await parts.aclose()


async def test_the_same_fault_is_told_at_growing_intervals_and_another_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parts_module, "TELL_AGAIN_S", 0.1)
    parts, one = Parts(), Fickle(PartFailed("in use"))
    with capture_logs() as logs:
        parts.want("one", one)
        await eventually(lambda: len(told(logs, "a part is down")) == 3)  # at 0, 0.1 and 0.3 s
        assert one.attempts > 10
        one.fault = PartFailed("not permitted")
        await eventually(lambda: told(logs, "a part is down")[-1] == "not permitted")
    await parts.aclose()


async def test_a_slow_one_holds_up_nobody() -> None:
    parts, release = Parts(), asyncio.Event()

    async def slow() -> None:
        await release.wait()

    parts.want("slow", slow)
    await parts.tried(0.05)
    assert parts.faults() == ["slow is down: not tried yet"]
    release.set()
    await eventually(lambda: parts.up()["slow"])
    await parts.aclose()


@pytest.mark.parametrize("end", [Parts.stop, None])
async def test_after_the_stop_nothing_is_opened(end: Callable[[Parts], None] | None) -> None:
    parts, one = Parts(), Fickle(PartFailed("in use"))
    parts.want("one", one)
    await parts.tried(5)
    if end is not None:
        end(parts)
    await parts.aclose()
    one.fault = None
    attempts = one.attempts
    await asyncio.sleep(0.01)
    assert (one.attempts, one.open) == (attempts, False)
