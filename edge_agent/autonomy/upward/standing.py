"""Knows whether the API server takes the node's own credentials, and so how the way there is for the node.

A certificate that has ended is refused (401), and so is one of an authority that is not trusted any more. The node is
then as far from the API server as behind a cut: what is kept answers it, and what it says waits. Others, who come with
tokens of their own, go on; and so does what the node may do only at the API server itself, such as asking for a new
certificate, whose answer is passed back as it is.

A connection keeps the certificate that it was made with, while the kubelet renews it. So at a refusal connections are
made anew, and the API server is asked again at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

import structlog

from edge_agent.autonomy.moment import Moment
from edge_agent.autonomy.upward.uplink import Uplink
from tunnel.core.wire.errors import StreamError
from tunnel.core.wire.faults import NODE_REFUSED

LOOK_FIRST_S, LOOK_S = 0.5, 15.0
"""Seconds after which the API server is asked again whether it takes the node, at first and in the end."""

_log = structlog.get_logger("edge.autonomy")

Look = Callable[[], Awaitable[None]]
"""A function that asks the API server for anything as the node. It raises StreamError when there is no answer."""


class Standing:
    """The way to the API server for whoever has the node's identity: an `Uplink` with one more way to be away."""

    def __init__(self, uplink: Uplink, look: Look, on_change: Callable[[bool], None] = lambda _up: None) -> None:
        """Asks nothing yet.

        Args:
            uplink: the way itself.
            look: asks the API server as the node; the answer comes to `answered`.
            on_change: is called when the node is away, or back.
        """
        self._uplink = uplink
        self._look = look
        self._on_change = on_change
        self._back, self._gone, self._refused = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._gone.set()
        self._since: Moment | None = None

    @property
    def is_up(self) -> bool:
        """Returns whether the node can do anything there."""
        return self._uplink.is_up and not self.is_refused

    @property
    def may_be_starting(self) -> bool:
        """Returns whether the API server is back since so short a time that it may know nobody's rights yet."""
        return self._uplink.may_be_starting

    @property
    def is_refused(self) -> bool:
        """Returns whether the API server does not take the node's credentials."""
        return self._refused.is_set()

    @property
    def refused_since(self) -> datetime | None:
        """Returns since when they are refused; None while they are not."""
        return self._since.shown() if self._since is not None else None

    def heard(self) -> None:
        """Takes that something came from the API server."""
        self._uplink.heard()

    def doubt(self) -> None:
        """Takes that a request had no answer."""
        self._uplink.doubt()

    async def back(self) -> None:
        """Waits until the node can do something there."""
        await self._back.wait()

    async def gone(self) -> None:
        """Waits until it cannot."""
        await self._gone.wait()

    def words(self) -> str:
        """Returns why it cannot, and since when, for a person."""
        if self._uplink.is_up and self._since is not None:
            since = f"{self._since.shown():%Y-%m-%dT%H:%M:%SZ}"
            return f"the API server does not take this node's certificate (401) since {since}"
        return self._uplink.words()

    def turned(self) -> None:
        """Takes that the uplink is away, or back."""
        self._turn()

    def answered(self, status: int) -> None:
        """Takes the status of an answer to a request with the node's credentials."""
        if status == 401 and not self.is_refused:
            self._refused.set()
            self._since = Moment()
            _log.warning("the API server does not take the node's certificate: what is kept answers the node",
                         code=NODE_REFUSED.code)  # fmt: skip
        elif self.is_refused and status < 500 and status not in (401, 408, 429):
            self._refused.clear()
            self._since = None
            _log.info("the API server takes the node's certificate again")
        else:
            return
        self._turn()

    async def look(self) -> None:
        """Asks the API server whether it takes the node; without an answer it is as before."""
        try:
            await self._look()
        except StreamError as error:
            _log.debug("it is not known whether the API server takes the node", reason=error.text)

    async def run(self) -> None:
        """Asks again, while the node is refused, until it is cancelled."""
        while True:
            await self._refused.wait()
            pause_s = LOOK_FIRST_S
            while self.is_refused:
                await self._uplink.back()
                await self.look()
                if self.is_refused:
                    await asyncio.sleep(pause_s)
                    pause_s = min(pause_s * 2, LOOK_S)

    # Internal

    def _turn(self) -> None:
        if self.is_up == self._back.is_set():
            return
        for event, is_so in ((self._back, self.is_up), (self._gone, not self.is_up)):
            if is_so:
                event.set()
            else:
                event.clear()
        self._on_change(self.is_up)
