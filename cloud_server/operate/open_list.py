"""Shows what runs now in the admin API: as a list, or as a line for each change."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from cloud_server.agents.feed import FollowerTooSlow
from cloud_server.opens.live import Change, LiveOpens, OpenView
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.process.turns import Turns

MOVED_S = 1.0
"""Seconds between two looks at the whole table: how often it is told that bytes moved, and how soon a change is told at
the latest.
"""
MAX_AHEAD = 1024
"""How many changes may wait for the reader; what is beyond is made up for by the next look at the whole table."""

Told = tuple[Change, OpenView]


def shown(view: OpenView) -> dict[str, Any]:
    """Returns one open as the admin API shows it."""
    return {
        "id": view.id,
        "trace_id": view.trace_id,
        "since": view.since,
        "kind": view.kind,
        "who": view.who,
        "groups": list(view.groups),
        "frontend": view.frontend,
        "peer": view.peer,
        "agent": view.agent,
        "target": view.target,
        "resolved": view.resolved or None,
        "bytes_to_agent": view.bytes_to_agent,
        "bytes_from_agent": view.bytes_from_agent,
        "class": view.traffic_class,
        "rule": view.rule or None,
    }


async def listed(live: LiveOpens) -> AsyncGenerator[object, None]:
    """Yields all opens that have a stream, oldest first."""
    for view in _running(live):
        yield shown(view)


async def watch(live: LiveOpens) -> AsyncGenerator[object, None]:
    """Yields what runs as `opened`, and then a line for each change, until it is closed."""
    loop = asyncio.get_running_loop()
    told: dict[str, OpenView] = {}
    over: deque[str] = deque(maxlen=4 * MAX_AHEAD)
    changes: asyncio.Queue[Told] = asyncio.Queue(MAX_AHEAD)
    tasks, turns = TaskOwner("watch of opens"), Turns()
    tasks.spawn("changes", _pass_on(live, changes))
    await asyncio.sleep(0)  # it follows from here on: nothing is missed between it and the table
    look_s = loop.time()
    try:
        while True:
            if loop.time() >= look_s:
                look_s = loop.time() + MOVED_S
                async for line in _differences(live, told, over, turns):
                    yield line
            try:
                async with asyncio.timeout_at(look_s):
                    change, view = await changes.get()
            except TimeoutError:
                continue
            if view.id in over:  # the table said so before
                continue
            if view.id not in told:
                told[view.id] = view
                yield _line("opened", view)
            if change is Change.ENDED:
                over.append(view.id)
                yield _line("closed", told.pop(view.id))
    finally:
        await tasks.aclose()


# Internal


async def _pass_on(live: LiveOpens, changes: asyncio.Queue[Told]) -> None:
    while True:
        try:
            async for change in live.subscribe():
                await changes.put(change)
        except FollowerTooSlow:
            continue


def _running(live: LiveOpens) -> Iterator[OpenView]:
    """Yields those that are there now, and still there when they are come to."""
    return (one.view() for one in live if one.stream is not None and live.get(one.id) is one)


async def _differences(
    live: LiveOpens, told: dict[str, OpenView], over: deque[str], turns: Turns
) -> AsyncGenerator[object, None]:
    """Brings `told` up to date, and yields a line for each difference; `over` takes those that were closed, of which
    changes may still wait to be read.

    What begins meanwhile is no part of the look; what ends meanwhile is closed at the end of it.
    """
    for view in _running(live):
        await turns.pause()
        before = told.get(view.id)
        told[view.id] = view
        if before is None:
            yield _line("opened", view)
        elif before != view:
            yield _line("moved", view)
    for told_id in list(told):
        await turns.pause()
        if live.get(told_id) is None:
            over.append(told_id)
            yield _line("closed", told.pop(told_id))


def _line(change: str, view: OpenView) -> dict[str, Any]:
    return {"change": change, "open": shown(view)}
