"""What is written together, and when."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from edge_agent.autonomy.kept import keeper
from tests.edge_agent.autonomy.kube import node_and_kube
from tests.support.waits import sooner_than


async def test_a_burst_of_changes_is_written_in_a_few_commits_and_lost_by_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "APART_S", 0.5)
    async with node_and_kube(tmp_path) as node:
        await node.names("/api/v1/pods?resourceVersion=0")
        start, commits, start_s = node.kube.version, node.api.keeper.commits, time.monotonic()
        async with node.watching(f"/api/v1/pods?watch=1&resourceVersion={start}") as following:
            with sooner_than(60.0, "a commit for each of them"):
                for number in range(200):
                    await node.kube.put("pods", f"pod-{number}", "ns")
                seen = [await following() for _ in range(200)]
        assert [event["object"]["metadata"]["name"] for event in seen] == [f"pod-{number}" for number in range(200)]
        assert node.api.keeper.commits - commits <= 3 + (time.monotonic() - start_s) / 0.5
