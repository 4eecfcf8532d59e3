"""Brings up parts of a daemon that may be down: a port in use, an address that is not up yet, a missing file.

None of them is a reason not to run. Each is opened, tried again until it is, and says why it is not in the log, the
metrics and the page for readiness. What a daemon is nothing without is not a part: it fails the start.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from tunnel.aio.process.tasks import TaskOwner
from tunnel.core.path.backoff import Backoff
from tunnel.core.wire.faults import BUG, PART_DOWN, Fault, FaultError, fault_of

RETRY_S = 1.0
"""The most seconds that the second attempt waits; later ones up to 3 s, and after half a minute up to 30 s (see
Backoff).
"""
TELL_AGAIN_S = 60.0
"""After so many seconds a part that is down for the same reason is told again; then after twice as long, and so on."""
MAX_TELL_AGAIN_S = 3600.0

_log = structlog.get_logger("tunnel.parts")


class PartFailed(FaultError):
    """A part cannot be opened now; the text says why."""

    default_fault = PART_DOWN


class Part:
    """One part of a daemon, which is brought up and may be down."""

    def __init__(self, name: str, open_: Callable[[], Awaitable[None]]) -> None:
        """`name` is for people and for metrics. `open_` raises PartFailed or OSError; cancelled, it leaves nothing."""
        self.name = name
        self.up = False
        self.fault = ""
        """Why it is down; empty while it was not tried yet, too."""
        self.cause = PART_DOWN
        """The cause of the last fault."""
        self.tried = asyncio.Event()
        """Set when the first attempt is over."""
        self._open = open_
        self._tell_after_s = 0.0
        self._pause_s = TELL_AGAIN_S

    def as_json(self) -> dict[str, object]:
        """Returns it as the admin API shows it."""
        return {"name": self.name, "up": self.up, "fault": self.fault or None}

    async def bring_up(self) -> None:
        """Tries until the part is up. The first attempt is made at once."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(random=random.random, first_s=RETRY_S)
        began_s = loop.time()
        while not await self._attempt():  # noqa: ASYNC110 - nothing tells that a port is free
            await asyncio.sleep(backoff.next_delay())
        if backoff.attempts:
            _log.info("a part is up", part=self.name, after_s=round(loop.time() - began_s, 1))

    async def _attempt(self) -> bool:
        try:
            await self._open()
        except (PartFailed, OSError) as error:
            self._failed(str(error), fault_of(error))
        except Exception:  # noqa: BLE001 - whatever it is, it takes no other part with it
            _log.exception("a part fails for a fault of the daemon, trying again", code=BUG.code, part=self.name)
            self.fault, self.cause = "a fault of the daemon, whose log says more", BUG
        else:
            self.up, self.fault = True, ""
        self.tried.set()
        return self.up

    def _failed(self, reason: str, fault: Fault) -> None:
        now_s = asyncio.get_running_loop().time()
        if reason == self.fault and now_s < self._tell_after_s:
            return
        self._pause_s = min(2 * self._pause_s, MAX_TELL_AGAIN_S) if reason == self.fault else TELL_AGAIN_S
        self._tell_after_s = now_s + self._pause_s
        self.fault, self.cause = reason, fault
        _log.warning("a part is down, trying again", code=fault.code, part=self.name, reason=reason)


class Parts:
    """The parts of one daemon. Call `stop` when it ends, then `aclose`; whoever opened something closes it."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._tasks = TaskOwner("parts")
        self._trying: list[asyncio.Task[None]] = []

    def want(self, name: str, open_: Callable[[], Awaitable[None]]) -> Part:
        """Begins to bring up a part, and returns it; see `Part` for the arguments."""
        part = Part(name, open_)
        self._parts.append(part)
        self._trying.append(self._tasks.spawn(name, part.bring_up()))
        return part

    def forget(self, part: Part) -> None:
        """Takes a part out, and no longer tries to bring it up; whoever opened it closes it."""
        index = self._parts.index(part)
        del self._parts[index]
        self._trying.pop(index).cancel()

    async def tried(self, within_s: float) -> None:
        """Waits until each part was tried once, at most `within_s` seconds: a name that resolves slowly holds up
        nothing.
        """
        try:
            async with asyncio.timeout(within_s):
                for part in self._parts:
                    await part.tried.wait()
        except TimeoutError:
            return

    def all(self) -> list[Part]:
        """Returns the parts that are wanted, in the order in which they were added."""
        return list(self._parts)

    def up(self) -> dict[str, bool]:
        """Returns whether each part is up, by name."""
        return {part.name: part.up for part in self._parts}

    def faults(self) -> list[str]:
        """Returns what is down, and why, for people."""
        return [f"{part.name} is down: {part.fault or 'not tried yet'}" for part in self._parts if not part.up]

    def stop(self) -> None:
        """Stops trying."""
        for task in self._trying:
            task.cancel()

    async def aclose(self) -> None:
        """Stops trying, and waits for attempts to end."""
        await self._tasks.aclose()
