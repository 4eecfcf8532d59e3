"""Keeps when agents were seen last, over restarts: noted in memory, and written in batches up to a minute later."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from itertools import islice

import structlog

from cloud_server.trust.records import SIGHTINGS, Sighting
from cloud_server.trust.store import Change, Record, Store, StoreUnavailable, value_of
from tunnel.aio.carriers.places import Places

WRITE_EVERY_S = 60.0
"""Seconds between two writes, which is what a killed server loses. A database of 5,000 boxes that come back at once is
written once, not 5,000 times.
"""
BATCH = 200
"""How many sightings one write has: after it the event loop reads as many records, in some 4 ms."""

_log = structlog.get_logger("cloud.store")


class Sightings:
    """The last sightings of agents, those that are still to be written among them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._unwritten: dict[str, Sighting] = {}
        self.places = Places()
        """How many agents were seen last at each address."""
        for record in store.list(SIGHTINGS):
            if (known := value_of(record)) is not None:
                self.places.moved("", known.address)
        store.watch(SIGHTINGS, self._changed)

    def get(self, name: str) -> Sighting | None:
        """Returns the last sighting of an agent; None when it never came."""
        return self._unwritten.get(name) or value_of(self._store.get(SIGHTINGS, name))

    def seen(self, name: str, address: str, version: str, reason: str = "", came: datetime | None = None) -> None:
        """Notes that an agent is there, or just went.

        Args:
            name: the agent's.
            address: where it is.
            version: of its build.
            reason: why its link was lost last; empty when that is not known.
            came: when its link began; None when it is about something else.
        """
        before = self.get(name)
        self.places.moved(before.address if before is not None else "", address)
        self._unwritten[name] = Sighting(
            last_seen=datetime.now(UTC),
            address=address,
            version=version,
            reason=reason or (before.reason if before is not None else ""),
            replaced=before.replaced if before is not None else None,
            replaced_from=before.replaced_from if before is not None else "",
            came=came or (before.came if before is not None else None),
        )

    def replaced(self, name: str, address: str) -> None:
        """Notes that a second process with an agent's identity was turned away, and where it came from."""
        before = self.get(name)
        now = datetime.now(UTC)
        self._unwritten[name] = Sighting(
            last_seen=before.last_seen if before is not None else now,
            address=before.address if before is not None else address,
            version=before.version if before is not None else "",
            reason=before.reason if before is not None else "",
            replaced=now,
            replaced_from=address,
            came=before.came if before is not None else None,
        )

    async def run(self) -> None:
        """Writes what was noted, every WRITE_EVERY_S, until cancelled."""
        while True:
            await asyncio.sleep(WRITE_EVERY_S)
            await self.write()

    async def write(self) -> None:
        """Writes what was noted. What cannot be written now is kept for the next time, and the log says so."""
        while batch := list(islice(self._unwritten.items(), BATCH)):
            try:
                await self._store.commit(*(Change(SIGHTINGS, name, sighting) for name, sighting in batch))
            except StoreUnavailable as fault:
                _log.warning("when agents were seen last cannot be kept", code=fault.fault.code, reason=str(fault))
                return
            for name, sighting in batch:
                if self._unwritten.get(name) is sighting:
                    del self._unwritten[name]

    # Internal

    def _changed(self, name: str, before: Record[Sighting] | None, after: Record[Sighting] | None) -> None:
        if after is None:  # the agent was forgotten: so is what was still to be written of it
            known = self._unwritten.pop(name, None) or value_of(before)
            self.places.moved(known.address if known is not None else "", "")
