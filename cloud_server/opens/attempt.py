"""One dial of a client's: the routes that may lead there, tried in turn within one deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from cloud_server.opens.opener import Opener
from cloud_server.routing.names import parse_target
from cloud_server.routing.route import Route
from cloud_server.routing.router import Router
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import OpenRefused
from tunnel.core.wire.target import Target

MAX_TRIES = 3
"""More would only make a client wait for what does not work."""


class Attempt:
    """Opens a stream over the first route that works."""

    def __init__(self, opener: Opener, routes: Sequence[Route]) -> None:
        """`routes`: at least one, best first."""
        self._opener = opener
        self._routes = routes[:MAX_TRIES]
        self._route = routes[0]

    @property
    def agent(self) -> str:
        """The agent of the route in use, or of the last one that was tried."""
        return self._route.agent

    @property
    def target(self) -> Target:
        """What that agent was asked to connect to."""
        return self._route.target

    async def open(self, *, principal: str, frontend: str, deadline_s: float) -> Stream:
        """Open a stream; cancelling it cancels the dial at the agent.

        Args:
            principal: who asks.
            frontend: through which front end.
            deadline_s: within which an answer comes. A try takes no more than its share of what is left.

        Raises:
            OpenRefused: what the last route said.
        """
        loop = asyncio.get_running_loop()
        give_up_s = loop.time() + deadline_s
        for left in range(len(self._routes), 0, -1):
            self._route = self._routes[-left]
            share_s = max(0.001, (give_up_s - loop.time()) / left)
            try:
                return await self._opener.open(
                    self._route.agent, self._route.target, principal=principal, frontend=frontend, deadline_s=share_s
                )
            except OpenRefused:
                if left == 1:
                    raise
        raise AssertionError("there is at least one route")


class Dials:
    """What front ends dial through."""

    def __init__(self, opener: Opener, router: Router) -> None:
        self._opener = opener
        self._router = router

    def attempt(self, authority: str, via: str = "") -> Attempt:
        """A dial to the `host:port` that a client asked for; nothing is dialled yet.

        Args:
            authority: what it asked for.
            via: the agent whose network that is meant in, whatever the router would say; empty for any.

        Raises:
            OpenRefused: it leads nowhere, or nobody can tell where; see `Router.routes`.
        """
        routes = [Route(via, parse_target(authority))] if via else self._router.routes(authority)
        return Attempt(self._opener, routes)
