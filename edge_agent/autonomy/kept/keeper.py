"""Keeps scopes on the disk for the event loop: one thread writes, and what comes meanwhile goes into one transaction.

The disk is a help and no condition: a scope that cannot be written is served on, and said not to be kept.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from pathlib import Path

import structlog

from edge_agent.autonomy.kept.disk import Disk, DiskDamaged, DiskUnavailable, Kept, ScopeWrite, begin_anew
from edge_agent.autonomy.kept.sealing import Sealing, SealingUnavailable
from tunnel.aio.process.blocking import BlockingCalls, NotAnswering
from tunnel.aio.process.tasks import TaskOwner

DATABASE = "autonomy.db"
WRITE_WAIT_S = 30.0
"""Seconds that a write may take: a flash card that erases its blocks takes some."""
VERSIONS_EACH_S = 600.0
"""Seconds after which versions are written that nothing else has changed. An older one only means that a watch goes on
from earlier; each commit wears out flash.
"""

APART_S = 0.1
"""Seconds between two commits at the least, unless one of them must survive a power cut. The first change after a quiet
time is written at once; those of a burst are written together, and watches hear of them together.
"""

_log = structlog.get_logger("edge.autonomy")


class Keeper:
    """The scopes on the disk."""

    def __init__(self, folder: Path) -> None:
        """Opens nothing yet. `folder` is the state folder."""
        self._folder = folder
        self._calls = BlockingCalls("store of objects", wait_s=WRITE_WAIT_S)
        self._tasks = TaskOwner("store of objects")
        self._disk: Disk | None = None
        self._waiting: list[tuple[ScopeWrite, asyncio.Future[str]]] = []
        self._versions: dict[str, ScopeWrite] = {}
        """The scopes of which only the version has moved on, and when they were noted."""
        self._noted_s = self._committed_s = 0.0
        self._hurried = asyncio.Event()
        self._writing = self._durable = False
        self.commits = 0
        """How many transactions were written."""
        self.trouble = ""
        """Why nothing is kept; empty when all is well."""
        self.seals = False
        """Whether secret objects can be kept."""

    # Public

    async def open(self) -> dict[str, Kept]:
        """Opens the store, and returns the scopes that are whole. Those that are not are forgotten, and named."""
        try:
            kept, damaged = await self._calls.run(self._open)
        except (DiskUnavailable, DiskDamaged, NotAnswering) as error:
            self.trouble = error.text
            _log.warning("nothing is kept for when the cloud is away", code=error.fault.code, reason=error.text)
            return {}
        code = DiskDamaged.default_fault.code
        for text in damaged:
            _log.warning("a part of what was kept is damaged, and is asked for anew", code=code, reason=text)
        return kept

    async def write(self, write: ScopeWrite, *, durable: bool = False) -> str:
        """Writes what has changed in a scope, and returns why that was not possible; empty when it is on the disk.

        `durable`: whether it must survive a power cut.
        """
        if self._disk is None:
            return self.trouble or "the store is closed"
        if write.is_secret and not self.seals:
            return "secrets cannot be sealed here"
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((write, done))
        self._durable = self._durable or durable
        if durable:
            self._hurried.set()
        if not self._writing:
            self._writing = True
            self._tasks.spawn("write", self._write_all())
        return await done

    def note_version(self, write: ScopeWrite) -> None:
        """Takes that nothing but a scope's version has changed. It is written with the next change of any scope, or
        after a while.
        """
        self._versions[write.scope] = write

    async def write_versions(self) -> None:
        """Writes the versions that were noted, if that is due."""
        now_s = asyncio.get_running_loop().time()
        if self._versions and now_s - self._noted_s >= VERSIONS_EACH_S:
            _, write = self._versions.popitem()
            await self.write(write)

    async def drop(self, scope: str) -> None:
        """Forgets a scope."""
        self._versions.pop(scope, None)
        for entry in [entry for entry in self._waiting if entry[0].scope == scope]:
            self._waiting.remove(entry)
            if not entry[1].done():
                entry[1].set_result("it was dropped")
        if self._disk is not None:
            try:
                await self._calls.run(partial(self._disk.drop, scope))
            except (DiskUnavailable, NotAnswering) as error:
                self._troubled(error.text)

    async def aclose(self) -> None:
        """Closes the store. What was noted is written."""
        if self._versions:
            await self.write(self._versions.popitem()[1])
        await self._tasks.finished()
        disk, self._disk = self._disk, None
        if disk is not None:
            self._calls.post(disk.close)

    # Internal

    def _open(self) -> tuple[dict[str, Kept], list[str]]:
        sealing: Sealing | None = None
        damaged: list[str] = []
        try:
            sealing = Sealing.of_folder(self._folder)
        except SealingUnavailable as error:
            damaged.append(error.text)
        path = self._folder / DATABASE
        try:
            disk = Disk(path, sealing)
        except DiskDamaged as error:
            damaged.append(error.text)
            try:
                begin_anew(path)
            except OSError as trouble:
                raise DiskUnavailable(f"{path}: {trouble.strerror}") from trouble
            disk = Disk(path, sealing)
        kept: dict[str, Kept] = {}
        for name in disk.scopes():
            try:
                found = disk.read(name)
            except DiskDamaged as error:
                damaged.append(error.text)
                disk.drop(name)
                continue
            if found is not None:
                kept[name] = found
        self._disk, self.seals = disk, sealing is not None
        return kept, damaged

    async def _write_all(self) -> None:
        """Writes until nothing waits. It belongs to nobody who waits, so that nobody's end is that of others."""
        try:
            while self._waiting:
                await self._paced()
                waiting, self._waiting = self._waiting, []
                durable, self._durable = self._durable, False
                versions, self._versions = self._versions, {}
                changed = {write.scope for write, _ in waiting}
                writes = [write for write, _ in waiting]
                writes += [write for scope, write in versions.items() if scope not in changed]
                self._noted_s = asyncio.get_running_loop().time()
                trouble = "it was not written"
                try:
                    trouble = await self._commit(writes, durable=durable)
                finally:
                    for _, done in waiting:
                        if not done.done():
                            done.set_result(trouble)
        finally:
            self._writing = False

    async def _paced(self) -> None:
        """Waits until the last commit was long enough ago, or one cannot wait."""
        loop = asyncio.get_running_loop()
        wait_s = self._committed_s + APART_S - loop.time()
        if wait_s > 0 and not self._durable:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._hurried.wait()
        self._hurried.clear()
        self._committed_s = loop.time()

    async def _commit(self, writes: list[ScopeWrite], *, durable: bool) -> str:
        assert self._disk is not None
        try:
            await self._calls.run(partial(self._disk.write, writes, durable=durable))
        except (DiskUnavailable, DiskDamaged, NotAnswering) as error:
            self._troubled(error.text)
            return error.text
        self.commits += 1
        if self.trouble:
            _log.info("the store of objects can be written again")
            self.trouble = ""
        return ""

    def _troubled(self, text: str) -> None:
        if text != self.trouble:
            _log.warning("the store of objects is not written", code=DiskUnavailable.default_fault.code, reason=text)
        self.trouble = text
