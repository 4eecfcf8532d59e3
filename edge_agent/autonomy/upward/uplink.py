"""Knows whether the API server can be reached, so that no request has to find that out by waiting.

1. Every byte that comes from it says that it can be reached.
2. When nothing has come for QUIET_S, or a request had no answer, it is asked (`GET /readyz`). Any answer at all says
   that it is reached; none within PROBE_S says that it is not. A refused connection says so at once.
3. While it is not reached it is asked again, after a second at first and after RETRY_S in the end. Requests are not
   sent to it: what is kept answers them, or they are told why there is no answer.
4. After a start nobody knows. Requests wait for the first answer, FIRST_S at the most: then it is away until it has
   answered. A node that boots without the cloud is not held up by silence.
5. It is believed to be back when it answers. A link that comes and goes costs the node's components nothing, since the
   watches that they have here go on all the while.
5. For STARTING_S from then on its refusals count for requests, and not for watches that run: an API server that has
   just started knows no rights yet, and refuses everybody.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol

import structlog

from edge_agent.autonomy.moment import Moment
from tunnel.core.wire.faults import API_SERVER_AWAY
from tunnel.core.wire.spoken import spoken_s

QUIET_S = 5.0
"""Seconds of silence after which the API server is asked. A node's watches bring something every ten seconds or so: the
kubelet's own lease and status go out, and bookmarks come in.
"""
PROBE_S = 2.0
"""Seconds that an answer may take, which is a second for each of two lost packets on a path of 100 ms."""
FIRST_S = 1.0
"""Seconds that requests wait for the first answer after a start, which are three round trips on a path of 300 ms. A
kubelet that starts looks after a second whether it has its node, and lists its pods then (kubelet v1.34
`pkg/kubelet/config/apiserver.go`, WaitForAPIServerSyncPeriod).
"""
RETRY_FIRST_S, RETRY_S = 1.0, 5.0
STARTING_S = 30.0
"""Seconds that an API server may take until it knows what it has on its disk; on two busy cores
it was some hundred milliseconds in each fourth start.
"""

_log = structlog.get_logger("edge.autonomy")

Probe = Callable[[], Awaitable[None]]
"""A function that asks the API server for anything. It raises OSError when it has no answer."""


class Way(Protocol):
    """The way to the API server, as one identity has it."""

    @property
    def is_up(self) -> bool:
        """Returns whether anything can be asked."""
        ...

    @property
    def may_be_starting(self) -> bool:
        """Returns whether the API server is back since so short a time that it may know nobody's rights yet."""
        ...

    def heard(self) -> None:
        """Takes that something came from the API server."""
        ...

    def doubt(self) -> None:
        """Takes that a request had no answer."""
        ...

    async def back(self) -> None:
        """Waits until something can be asked."""
        ...

    async def gone(self) -> None:
        """Waits until nothing can."""
        ...

    def words(self) -> str:
        """Returns why nothing can be asked, and since when, for a person."""
        ...


class Uplink:
    """The state of the way to the API server."""

    def __init__(self, probe: Probe, on_change: Callable[[bool], None] = lambda _up: None) -> None:
        """Asks nothing yet, and takes it to be away until it has answered once.

        Args:
            probe: asks it, and returns when it has answered.
            on_change: is called when it is away, or back.
        """
        self._probe = probe
        self._on_change = on_change
        self._doubted = asyncio.Event()
        self._back, self._away = asyncio.Event(), asyncio.Event()
        self._away.set()
        self._known = asyncio.Event()
        self._heard_s = 0.0
        self._back_s: float | None = None
        """When it came back last, on the loop's clock; None: it was not away since it was reached first."""
        self._was_up = False
        """Whether it was ever reached."""
        self.is_up = False
        self.reason = "it has not answered yet"
        """Why it is away."""
        self._since = Moment()

    @property
    def since(self) -> datetime:
        """Returns when it went away or came back."""
        return self._since.shown()

    def heard(self) -> None:
        """Takes that something came from the API server."""
        self._heard_s = asyncio.get_running_loop().time()
        if not self.is_up:
            self._turn(up=True, reason="")

    @property
    def may_be_starting(self) -> bool:
        """Returns whether it is back since so short a time that it may know nobody's rights yet."""
        return self._back_s is not None and asyncio.get_running_loop().time() - self._back_s < STARTING_S

    def doubt(self) -> None:
        """Takes that a request had no answer: the API server is asked at once."""
        self._doubted.set()

    async def known(self) -> None:
        """Waits until it was asked once, or has not answered for FIRST_S."""
        await self._known.wait()

    async def back(self) -> None:
        """Waits until the API server is reached."""
        await self._back.wait()

    async def gone(self) -> None:
        """Waits until the API server is not reached."""
        await self._away.wait()

    def words(self) -> str:
        """Returns for how long it is away and why, for a person."""
        return f"the API server is not reached since {self.since:%Y-%m-%dT%H:%M:%SZ}: {self.reason}"

    async def run(self) -> None:
        """Keeps the state until it is cancelled."""
        failures = 0
        patience = asyncio.get_running_loop().call_later(FIRST_S, self._known.set)
        while True:
            try:
                async with asyncio.timeout(PROBE_S):
                    await self._probe()
            except TimeoutError:
                failures += 1
                self._lost(f"no answer within {spoken_s(PROBE_S)}", is_first=failures == 1)
            except OSError as error:
                failures += 1
                self._lost(str(error) or type(error).__name__, is_first=failures == 1)
            else:
                failures = 0
                self.heard()
            self._known.set()
            patience.cancel()
            if self.is_up:
                await self._quiet()
            else:
                pause_s = min(RETRY_FIRST_S * 1.5 ** min(failures - 1, 16), RETRY_S)
                await asyncio.sleep(pause_s * (0.75 + random.random() / 2))  # noqa: S311 - not a secret

    # Internal

    async def _quiet(self) -> None:
        """Waits until nothing has come for a while, or somebody doubts."""
        loop = asyncio.get_running_loop()
        self._doubted.clear()
        while (left_s := self._heard_s + QUIET_S - loop.time()) > 0:
            try:
                async with asyncio.timeout(left_s):
                    await self._doubted.wait()
                return
            except TimeoutError:
                continue

    def _lost(self, reason: str, *, is_first: bool) -> None:
        self.reason = reason
        if self.is_up or is_first:  # the first one after a start is told as well, although it was not reached before
            self._turn(up=False, reason=reason)

    def _turn(self, *, up: bool, reason: str) -> None:
        if up and self._was_up:
            self._back_s = asyncio.get_running_loop().time()
        self.is_up, self.reason, self._since = up, reason, Moment()
        self._was_up = self._was_up or up
        if up:
            self._back.set()
            self._away.clear()
            _log.info("the API server is reached")
        else:
            self._back.clear()
            self._away.set()
            _log.warning("the API server is away: what is kept answers", code=API_SERVER_AWAY.code, reason=reason)
        self._on_change(up)
