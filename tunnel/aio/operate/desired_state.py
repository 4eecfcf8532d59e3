"""What a daemon should be, by its configuration file, and how the running daemon follows that file.

The file is read again on a signal, on a command, and when another one lies behind its path. A bad file changes nothing:
the daemon goes on with what it had, and says so until the file is good again.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import structlog

from tunnel.aio.process.blocking import BlockingCalls, NotAnswering
from tunnel.aio.process.config import ConfigError
from tunnel.aio.process.differences import Difference, differences
from tunnel.aio.process.file_watch import FileWatch
from tunnel.aio.process.sd_notify import notify, notify_reloading
from tunnel.aio.process.tasks import TaskOwner
from tunnel.core.wire.faults import BUG, FaultError

C = TypeVar("C")

MAX_SHOWN = 100
"""How many differences a log line or a status lists; a file with more was generated, and its author knows."""

READ_S = 3.0
"""How many seconds ago the file may have been read before the daemon got as far as this. A file that is older than that
is not read again at the start: it would cost an agent 1 MB for nothing.
"""

_log = structlog.get_logger("tunnel.config")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """The result of one look at the file."""

    generation: int
    """The number of the configuration that the daemon runs with: 1 at its start, and one more with each
    applied change.
    """
    changed: list[str] = field(default_factory=list)
    """What is different now, key by key; empty for a file that says the same."""
    needs_restart: list[str] = field(default_factory=list)
    """What the file says and only a restart of the daemon applies."""
    fault: str = ""
    """Why the file cannot be used; empty when it can. Nothing is changed then."""

    def as_json(self) -> dict[str, Any]:
        """Returns the result as the admin API shows it."""
        return {
            "generation": self.generation, "changed": self.changed, "needs_restart": self.needs_restart,
            "fault": self.fault or None,
        }  # fmt: skip


class DesiredState(Generic[C]):
    """The configuration of a running daemon. `run` follows its file; `reload` looks at once."""

    def __init__(
        self,
        path: Path,
        current: C,
        *,
        load: Callable[[Path], C],
        apply: Callable[[C, C], Awaitable[None]],
        only_at_start: Sequence[str] = (),
        fault: str = "",
        on_reloaded: Callable[[Reloaded], None] = lambda _reloaded: None,
    ) -> None:
        """Follows the file of a daemon that runs with `current` already.

        Args:
            path: the path of the file.
            current: what the daemon runs with.
            load: reads the file; blocking. It raises ConfigError for one that cannot be used.
            apply: makes the daemon match the second of two configurations, where it matches the first. What cannot be
                had now (a port in use) is no failure: it is brought up later, and told by the daemon's parts.
            only_at_start: keys, or sections, that `apply` leaves alone.
            fault: why the file cannot be used as it is, for a daemon that started all the same; told by it already.
            on_reloaded: is told the result of each look that found something: for metrics and the audit record.
        """
        self.path = path
        self.current = current
        self.generation = 1
        self.loaded = datetime.now(UTC)
        """When the current configuration was read, in UTC."""
        self.fault = fault
        """Why the file as it is now cannot be used; empty when it can."""
        self._half_applied = ""
        """Why the last change was not applied to its end, which another look at the same file does not mend."""
        self.changed: list[str] = []
        """The differences of the last change, key by key."""
        self.needs_restart: list[str] = []
        """What the file says and only a restart applies."""
        self._started_with = current
        self._load = load
        self._apply = apply
        self._only_at_start = tuple(only_at_start)
        self._on_reloaded = on_reloaded
        self._calls = BlockingCalls("configuration")
        self._one_at_a_time = asyncio.Lock()

    async def run(self) -> None:
        """Follows the file until it is cancelled."""
        watch = FileWatch(lambda: [self.path])
        try:
            await watch.start()
            if await self._calls.run(self._may_have_changed):
                await self.reload("the file has changed")
            while True:
                await watch.changed()
                await self.reload("the file has changed")
        finally:
            watch.close()

    @contextmanager
    def reloading_on_hangup(self, also: Callable[[], object] = lambda: None) -> Iterator[None]:
        """Reads the file anew at each SIGHUP while the block runs; without this the signal would end the process.

        systemd is told when that begins and when it is over. `also` is called first at each signal.
        """
        loop = asyncio.get_running_loop()
        tasks = TaskOwner("reload")

        def hung_up() -> None:
            also()
            notify_reloading()
            tasks.spawn("SIGHUP", self._hung_up())

        loop.add_signal_handler(signal.SIGHUP, hung_up)
        try:
            yield
        finally:
            loop.add_signal_handler(signal.SIGHUP, lambda: None)  # the end is no moment to be killed by one

    async def reload(self, why: str) -> Reloaded:
        """Reads the file and applies what is different.

        Args:
            why: who or what asked, for the log.

        Returns:
            How it went. A file that cannot be used is a fault in there and in the log, and raises nothing.
        """
        async with self._one_at_a_time:
            try:
                new, found, restart = await self._calls.run(self._look)
            except (ConfigError, NotAnswering) as error:
                return self._keep_old(error, why)
            except Exception:  # noqa: BLE001 - whatever it is, the daemon goes on with what it has
                text = "the configuration cannot be read, for a fault of the daemon"
                _log.exception(text, code=BUG.code, why=why)
                return self._keep_old(FaultError("a fault of the daemon while it was read: the log says more"), why)
            return await self._take(new, found, restart, why)

    def as_json(self) -> dict[str, Any]:
        """Returns how the configuration stands, as `status` of the admin API shows it."""
        return {
            "generation": self.generation,
            "loaded": self.loaded,
            "path": str(self.path),
            "fault": self.fault or None,
            "changed": self.changed,
            "needs_restart": self.needs_restart,
        }

    # Internal

    def _may_have_changed(self) -> bool:
        """Returns whether another file came between the daemon's reading it and its being watched. Blocking."""
        try:
            return self.path.stat().st_ctime > self.loaded.timestamp() - READ_S
        except OSError:
            return True

    async def _hung_up(self) -> None:
        try:
            await self.reload("SIGHUP")
        finally:
            notify("READY=1")

    def _keep_old(self, error: FaultError, why: str) -> Reloaded:
        fault = error.text
        if fault != self.fault:
            text = "the configuration cannot be used, the one before stays"
            _log.error(text, code=error.fault.code, why=why, reason=fault)
        self.fault = fault
        return self._told(Reloaded(generation=self.generation, needs_restart=self.needs_restart, fault=fault))

    def _look(self) -> tuple[C, list[Difference], list[Difference]]:
        """Returns what is in the file, what of it is new, and what of it only a restart applies.

        Blocking: of a long file also the comparing takes its time.
        """
        new = self._load(self.path)
        found = differences(self.current, new)
        since_start = found if self.current is self._started_with else differences(self._started_with, new)
        return new, found, [one for one in since_start if one.is_of(self._only_at_start)]

    async def _take(self, new: C, found: list[Difference], restart: list[Difference], why: str) -> Reloaded:
        mended, self.fault = self.fault not in ("", self._half_applied), self._half_applied
        if mended:
            _log.info("the configuration can be used again", why=why)
        self.needs_restart = _shown(restart)
        if not found:
            told = Reloaded(generation=self.generation, needs_restart=self.needs_restart, fault=self.fault)
            return self._told(told, mended)
        try:
            await self._apply(self.current, new)
            self.fault = self._half_applied = ""
        except Exception:  # noqa: BLE001 - whatever it is, the daemon goes on and says so
            self.fault = "a fault of the daemon while it was applied: the log says more, and a restart applies all"
            self._half_applied = self.fault
            text = "the configuration was not applied to its end, for a fault of the daemon"
            _log.exception(text, code=BUG.code, why=why)
        self.current = new
        self.generation += 1
        self.loaded = datetime.now(UTC)
        self.changed = _shown(found)
        _log.info(
            "configuration applied", why=why, generation=self.generation, changed=self.changed,
            needs_restart=self.needs_restart,
        )  # fmt: skip
        return self._told(
            Reloaded(
                generation=self.generation, changed=self.changed, needs_restart=self.needs_restart, fault=self.fault
            )
        )

    def _told(self, reloaded: Reloaded, mended: bool = False) -> Reloaded:
        if reloaded.changed or reloaded.fault or mended:
            self._on_reloaded(reloaded)
        return reloaded


def _shown(found: Sequence[Difference]) -> list[str]:
    shown = [str(one) for one in found[:MAX_SHOWN]]
    return [*shown, f"and {len(found) - MAX_SHOWN} more"] if len(found) > MAX_SHOWN else shown
