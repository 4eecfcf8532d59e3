"""What a scope says of itself: since when nothing keeps it current."""

from __future__ import annotations

from pathlib import Path

from tests.edge_agent.autonomy.kube import node_and_kube
from tests.support.waits import eventually

SERVICES = "/api/v1/services?resourceVersion=0"


async def test_it_says_since_when_it_is_not_current(tmp_path: Path) -> None:
    async with node_and_kube(tmp_path) as node:
        await node.kube.put("services", "web", "shop")
        assert await node.names(SERVICES) == ["web"]
        (feed,) = node.api.feeds.all
        await eventually(lambda: feed.is_live)
        assert node.api.as_json()["scopes"][0]["stale_s"] == 0
        node.kube.cut()
        await node.until_away()
        assert 0 < feed.stale_s < 60
        node.kube.gone = False
        await node.until_up()
        await eventually(lambda: feed.is_live)
        assert feed.stale_s == 0


async def test_one_from_the_disk_is_not_current_before_its_watch_runs(tmp_path: Path) -> None:
    async with node_and_kube(tmp_path) as node:
        await node.kube.put("services", "web", "shop")
        assert await node.names(SERVICES) == ["web"]
        node.kube.cut()
        await node.restart()
        await node.until_away()
        assert await node.names(SERVICES) == ["web"]
        (feed,) = node.api.feeds.all
        assert feed.stale_s > 0
