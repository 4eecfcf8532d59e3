"""Lets one server process take over from another: what a start inherits, and SIGUSR2, which starts a successor.

What passes from one to the other: the listening sockets of the front ends and the lock on the state folder. Agents are
sent to the new process by GOAWAY, since gRPC takes no sockets; streams that run end in the old one.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import MutableMapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from tunnel.aio.process.blocking import make_in_thread
from tunnel.aio.process.files import PUBLIC, write_atomic
from tunnel.aio.process.handed import Handed, take_listen_fds
from tunnel.aio.process.lifecycle import Stop
from tunnel.aio.process.pid_file import PidFile
from tunnel.aio.process.sd_notify import notify
from tunnel.aio.process.succession import Predecessor, Successor, SuccessorFailed
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sockets.listening import ListeningSockets
from tunnel.core.wire.faults import HANDOVER_BROKE, NOT_UPGRADED, SYSTEM_REFUSED

PID_FILE: Final = "server.pid"
OUTCOME_FILE: Final = "upgrade.json"
"""The file that says how the last upgrade went, for the command that asked for it."""
START_S = 30.0
"""Seconds for the new process to be ready: it takes 1-2 s, and a machine that is busy with it some more."""
_LOCK = "state-lock"

_log = structlog.get_logger("cloud.upgrade")


class Inheritance:
    """What this process was started with: the process before it, its lock and its listening sockets."""

    def __init__(self, predecessor: Predecessor | None, handed: list[Handed]) -> None:
        self.predecessor = predecessor
        """The process that is taken over from; None when there is none."""
        locks = [one.descriptor for one in handed if one.name == _LOCK]
        self._lock = PidFile(locks[0]) if locks else None
        listening = [one for one in handed if one.name != _LOCK]
        self.sockets = ListeningSockets(listening, managed=True, holding=predecessor is not None)

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> Inheritance:
        """Takes what the process was started with from its environment, whose variables are gone then. Must be called
        at the very start; blocks.

        Raises:
            OSError: the process before hands nothing over.
        """
        listening = take_listen_fds(environ)
        came = Predecessor.from_environment(environ)
        return cls(None, listening) if came is None else cls(*came)

    def lock(self, state: Path) -> PidFile | None:
        """Makes sure that this is the one server of a state folder, and returns the lock; None where that cannot be
        told. Blocks.

        Raises:
            AlreadyRunning: another server has the folder.
        """
        if self._lock is not None:
            return self._lock
        try:
            return PidFile.take(state / PID_FILE)
        except OSError as error:
            _log.warning(
                "no lock on the state folder",
                path=str(state / PID_FILE),
                code=SYSTEM_REFUSED.code,
                reason=error.strerror,
            )
            return None

    async def take_over(self) -> None:
        """Says that this process is ready, and returns when the one before has let go; at once when there is none."""
        if self.predecessor is not None:
            self.predecessor.ready()
            if not await self.predecessor.let_go():
                _log.warning("the process before has ended, this one takes over all the same", code=HANDOVER_BROKE.code)
        await self.sockets.release()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The way that an upgrade went, as it stands in OUTCOME_FILE."""

    of: int
    """The id of the process that was asked."""
    number: int
    """How many times that process had been asked by then."""
    successor: int = 0
    """The id of the process that took over; 0 when none did."""
    reason: str = ""
    """The reason why none did; empty when one did."""

    def write(self, state: Path) -> None:
        """Replaces the file in the state folder; logs when that fails. Blocks."""
        fields = {"of": self.of, "number": self.number, "successor": self.successor, "reason": self.reason}
        try:
            write_atomic(state / OUTCOME_FILE, json.dumps(fields).encode(), PUBLIC)
        except OSError as error:
            _log.warning("the outcome of the upgrade is not written", code=SYSTEM_REFUSED.code, reason=error.strerror)

    @classmethod
    def read(cls, state: Path) -> Outcome | None:
        """Returns the outcome of the last upgrade; None before the first, or when the file cannot be read. Blocks."""
        try:
            return cls(**json.loads((state / OUTCOME_FILE).read_bytes()))
        except (OSError, ValueError, TypeError):
            return None


class Upgrades:
    """The upgrades of this process: starts its successor when asked to. A successor that is not ready in time changes
    nothing.
    """

    def __init__(self, inheritance: Inheritance, lock: PidFile | None, state: Path, stop: Stop) -> None:
        """Starts nothing yet. `stop` is asked to stop this process when there is a successor."""
        self._sockets = inheritance.sockets
        self._lock = lock
        self._state = state
        self._stop = stop
        self._tasks = TaskOwner("upgrade")
        self._running: asyncio.Task[None] | None = None
        self._number = 0
        self.successor: Successor | None = None
        """The process that takes over, which waits for `let_go`; None when this process stops for good."""

    # Public

    def ask(self) -> None:
        """Starts an upgrade, unless that cannot be now: the log and the outcome say why."""
        self._number += 1
        if refusal := self._refusal():
            _log.error("no upgrade", code=NOT_UPGRADED.code, reason=refusal)
            self._tasks.spawn("outcome", self._tell(reason=refusal))
            return
        self._running = self._tasks.spawn("upgrade", self._upgrade())

    async def call_off(self) -> None:
        """Ends an upgrade that is under way, since this process stops. Nothing happens to a successor that is ready."""
        if self.successor is None and self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})

    async def let_go(self) -> None:
        """Lets the successor begin, since this process accepts no more clients."""
        successor = self.successor
        assert successor is not None
        notify(f"MAINPID={successor.pid}")
        try:
            successor.go()
        except SuccessorFailed as failed:
            self._stop.failed = True
            _log.error("nobody takes over: stopping", code=HANDOVER_BROKE.code, reason=str(failed))
            await self._tell(reason=str(failed))
            return
        _log.info("another process has taken over, draining", successor=successor.pid)
        await self._tell(successor=successor.pid)

    async def aclose(self) -> None:
        """Ends an upgrade that is under way, and waits for what is left to write."""
        await self.call_off()
        await self._tasks.finished()

    # Internal

    def _refusal(self) -> str:
        if self.successor is not None:
            return f"process {self.successor.pid} has taken over already"
        if self._stop.asked:
            return "the server is stopping"
        if self._running is not None and not self._running.done():
            return "an upgrade is under way"
        if os.getpid() == 1:
            return "the server is process 1, with which its container ends: start a new container"
        return ""

    async def _upgrade(self) -> None:
        _log.info("starting another process to take over")
        try:
            successor = await self._started()
        except SuccessorFailed as failed:
            _log.error(
                "no upgrade: the new process failed, this one goes on", code=failed.fault.code, reason=str(failed)
            )
            await self._tell(reason=str(failed))
        except asyncio.CancelledError:
            await self._tell(reason="the server is stopping")
            raise
        else:
            self._sockets.hand_over()
            self.successor = successor
            self._stop.ask()

    async def _started(self) -> Successor:
        """Starts a successor and returns it when it is ready; one that will not be ready is ended."""
        handed = self._sockets.open_now()
        if self._lock is not None:
            handed.append(Handed(_LOCK, self._lock.descriptor))
        successor = await make_in_thread(partial(Successor.start, handed), Successor.kill)
        try:
            await successor.wait_ready(START_S)
        except (SuccessorFailed, asyncio.CancelledError):
            await asyncio.to_thread(successor.kill)
            raise
        return successor

    async def _tell(self, *, successor: int = 0, reason: str = "") -> None:
        outcome = Outcome(of=os.getpid(), number=self._number, successor=successor, reason=reason)
        await asyncio.to_thread(outcome.write, self._state)
