"""How soon a scope is current again after its watch broke, or its past was forgotten; in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from edge_agent.autonomy.asks import Scope
from edge_agent.autonomy.kept.feed import Feed
from edge_agent.autonomy.kept.keeper import Keeper
from edge_agent.autonomy.upward.passing import Unreached
from edge_agent.autonomy.upward.upstream import Gone
from tunnel.kubeapi.codecs import Listed, Told

pytestmark = pytest.mark.looptime
SCOPE = Scope(who="node", group="", version="v1", resource="pods", namespace="", label_selector="", field_selector="",
              encoding="json")  # fmt: skip


class Api:
    """An API server of an empty list. Its watches break after a while, or it forgets what was before."""

    may_be_starting = False

    def __init__(self) -> None:
        self.watch_s = 60.0
        self.forgets = 0
        """How many watches are told that their past is gone."""
        self.pauses: list[float] = []
        self.lists = self.watches = 0

    async def ready(self) -> None:
        """It is there."""

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(seconds)

    async def fetch(self, _scope: Scope, _version: str, _max_bytes: int) -> Listed:
        self.lists += 1
        return Listed("v1", "PodList", str(100 + self.lists), "", [])

    @asynccontextmanager
    async def watch(self, _scope: Scope, _version: int, _seconds: float) -> AsyncIterator[AsyncIterator[list[Told]]]:
        self.watches += 1
        if self.forgets:
            self.forgets -= 1
            raise Gone
        yield self._events()

    async def _events(self) -> AsyncIterator[list[Told]]:
        await asyncio.sleep(self.watch_s)
        for _ in range(0):
            yield []
        raise Unreached("it was cut")


async def follow(api: Api, folder: Path, seconds: float) -> None:
    """Keep a scope current for so long."""
    feed = Feed(SCOPE, api, Keeper(folder), 1 << 20)  # type: ignore[arg-type]
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await feed.run()


async def test_a_watch_that_is_cut_each_minute_is_asked_for_again_at_once(tmp_path: Path) -> None:
    api = Api()
    await follow(api, tmp_path, 3600)
    assert api.watches > 55
    assert max(api.pauses) < 2


async def test_a_watch_that_breaks_at_once_is_asked_for_less_and_less(tmp_path: Path) -> None:
    api = Api()
    api.watch_s = 0.1
    await follow(api, tmp_path, 600)
    assert api.watches < 30
    assert max(api.pauses) > 30


async def test_behind_a_new_list_the_watch_begins_without_a_pause(tmp_path: Path) -> None:
    api = Api()
    api.forgets = 1
    await follow(api, tmp_path, 5)
    assert (api.lists, api.watches, api.pauses) == (2, 2, [])


async def test_who_forgets_again_and_again_is_asked_less_and_less(tmp_path: Path) -> None:
    api = Api()
    api.forgets = 1000
    await follow(api, tmp_path, 600)
    assert api.lists < 30
