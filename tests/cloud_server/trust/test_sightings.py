"""When agents were seen last is known over restarts, and written in batches."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

import cloud_server.trust.sightings as sightings_module
from cloud_server.trust.agents import JoinedAgents
from cloud_server.trust.records import SIGHTINGS
from cloud_server.trust.sightings import Sightings
from cloud_server.trust.store import StoreUnavailable
from tests.support.state import opened
from tests.support.waits import eventually
from tunnel.aio.carriers.peer_key import PeerKey


async def test_they_outlive_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sightings_module, "WRITE_EVERY_S", 0.01)
    async with opened(tmp_path) as store:
        sightings = Sightings(store)
        assert sightings.get("box-7") is None
        sightings.seen("box-7", "192.0.2.1:5", "1.2")
        sightings.replaced("box-7", "192.0.2.9:6")
        sightings.seen("box-7", "192.0.2.1:7", "1.3")
        writing = asyncio.get_running_loop().create_task(sightings.run())
        await eventually(lambda: store.get(SIGHTINGS, "box-7"))
        writing.cancel()
        await asyncio.wait([writing])
    async with opened(tmp_path) as store:
        seen = Sightings(store).get("box-7")
    assert seen is not None
    assert (seen.address, seen.version, seen.replaced_from) == ("192.0.2.1:7", "1.3", "192.0.2.9:6")
    assert datetime.now(UTC) - seen.last_seen < timedelta(minutes=1)
    assert seen.replaced is not None


async def test_many_are_written_in_few_steps_and_none_is_lost_when_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as store:
        sightings, commits, full = Sightings(store), 0, True
        commit = store.commit

        async def counted(*changes: object) -> None:
            nonlocal commits
            if full:
                raise StoreUnavailable("the disk is full")
            commits += 1
            await commit(*changes)  # type: ignore[arg-type]

        monkeypatch.setattr(store, "commit", counted)
        for count in range(1000):
            sightings.seen(f"box-{count}", "192.0.2.1:5", "1")
        await sightings.write()
        full = False
        await sightings.write()
        assert (commits, len(store.list(SIGHTINGS))) == (5, 1000)
        await sightings.write()
        assert commits == 5


async def test_how_many_are_at_an_address_is_known_over_restarts(tmp_path: Path) -> None:
    here, there = (PeerKey.of_text(f"192.0.2.{one}:1").client for one in (1, 2))
    async with opened(tmp_path) as store:
        agents, sightings = JoinedAgents(store, pins_unknown=True), Sightings(store)
        for name in ("box-1", "box-2", "box-3"):
            await agents.check(name, b"a key")
            sightings.seen(name, "192.0.2.1:5", "1")
        sightings.seen("box-3", "192.0.2.2:5", "1")
        await sightings.write()
        sightings.seen("box-3", "192.0.2.2:6", "1")
        assert (sightings.places.boxes_at(here), sightings.places.boxes_at(there)) == (2, 1)
    async with opened(tmp_path) as store:
        agents, sightings = JoinedAgents(store, pins_unknown=True), Sightings(store)
        assert (sightings.places.boxes_at(here), sightings.places.boxes_at(there)) == (2, 1)
        for name in ("box-1", "box-3"):
            assert await agents.forget(name)
        assert (sightings.places.boxes_at(here), sightings.places.boxes_at(there)) == (1, 0)


async def test_a_forgotten_name_was_never_seen(tmp_path: Path) -> None:
    async with opened(tmp_path) as store:
        agents, sightings = JoinedAgents(store, pins_unknown=True), Sightings(store)
        for name in ("written", "unwritten"):
            await agents.check(name, b"a key")
            sightings.seen(name, "192.0.2.1:5", "1.2")
            if name == "written":
                await sightings.write()
        for name in ("written", "unwritten"):
            assert await agents.forget(name)
            assert sightings.get(name) is None
        await sightings.write()
        assert [record for record in store.list(SIGHTINGS) if record.key in ("written", "unwritten")] == []
