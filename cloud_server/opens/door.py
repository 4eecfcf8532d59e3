"""Holds the door, where every front end asks for streams, and every stream that an agent opens comes in."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Protocol

from structlog.contextvars import bind_contextvars

from cloud_server.opens.live import LiveOpen, LiveOpens, Permitted
from cloud_server.opens.pace import OpenPace
from cloud_server.opens.policed import Opener, Policed
from cloud_server.opens.policy import Policy
from cloud_server.opens.recorded import NoCounts, OpenCounts, Recorded
from cloud_server.opens.records import OpenRecords
from cloud_server.opens.request import OpenRequest
from cloud_server.routing.names import parse_target
from cloud_server.routing.route import Route
from cloud_server.trust.caller import Caller
from cloud_server.trust.standing import Standing
from tunnel.aio.operate.audit import Audit
from tunnel.aio.sessions.pending import Gone, open_unless_gone
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import GAVE_UP, Code, OpenRefused, StreamError
from tunnel.core.wire.target import Target


class Routing(Protocol):
    """The lookup that says where what a client asks for is."""

    def routes(self, authority: str) -> list[Route]:
        """Returns the ways to an address, best first and at least one.

        Raises:
            OpenRefused: it leads nowhere, or nobody can tell where.
        """
        ...


Serve = Callable[[Callable[[Stream], None]], Awaitable[None]]
"""A function that serves a stream that an agent opens: it connects it, calls its argument with the stream once there is
one, and carries the stream to its end. What the argument raises forbids what was dialled: nothing may be sent to it.
"""


class Door:
    """The door of the server: it opens streams for clients, and takes in those that agents open."""

    def __init__(
        self,
        live: LiveOpens,
        routing: Routing,
        policy: Policy,
        audit: Audit,
        local: Opener,
        counts: OpenCounts | None = None,
        standing: Standing | None = None,
        pace: OpenPace | None = None,
    ) -> None:
        """Puts the chain together.

        Args:
            live: the table that it keeps.
            routing: finds the routes of requests that come without one.
            policy: is asked about each route.
            audit: takes the records.
            local: opens streams at agents.
            counts: is told what happens; None: nobody wants to know.
            standing: keeps what everything stands on; None: nothing is ever taken away.
            pace: how fast users may open; None for the usual pace.
        """
        self.standing = Standing() if standing is None else standing
        """The holds of everything that lasts, of which the door takes one for each open."""
        self._live = live
        self.routing = routing
        """The routing in use. It may be replaced as a whole, and holds for what is asked for from then on."""
        self._records = OpenRecords(audit)
        self._recorded = Recorded(live, self._records, counts or NoCounts(), local)
        self._policed = Policed(policy, self._recorded)
        self._pace = pace or OpenPace()

    # Public

    def count_for(self, counts: OpenCounts | None) -> None:
        """Tells `counts` what happens from now on; with None, nobody is told."""
        self._recorded.counts = counts or NoCounts()

    async def open(self, request: OpenRequest, gone: Gone | None = None) -> LiveOpen | None:
        """Opens a stream for a client. Cancelling the call cancels the dial at the agent.

        Args:
            request: what is wanted.
            gone: is done when the client is; None for one that does not go.

        Returns:
            The open, with its stream; None when the client went first.

        Raises:
            OpenRefused: `code` and text say why; an answer comes within the request's deadline.
        """
        live = self._begin(request)
        try:
            self._stand(live)
            stream = await open_unless_gone(self._routed(live), gone, live.scope)
        except BaseException as error:
            self._not_opened(live, error)
            raise
        if stream is not None:
            live.scope = None
            return live
        self._not_opened(live, live.ended_by or OpenRefused(GAVE_UP, Code.CANCELLED))
        if live.ended_by is not None:
            raise live.ended_by
        return None

    async def take_in(self, request: OpenRequest, serve: Serve) -> None:
        """Serves a stream that an agent opens, to its end.

        Raises:
            StreamError: it may not be connected, or cannot, or nobody waits for it any more.
        """
        live = self._begin(request)
        try:
            self._stand(live)
            live.permitted = self._routes(request)
            self._policed.check(live)
            self._recorded.admit()
            await self._serve(live, serve)
        except BaseException as error:
            self._not_opened(live, error)
            if live.stream is not None:
                reason = reason_of(error)
                live.stream.reset(reason.code, str(reason))
            raise

    def refuse(self, request: OpenRequest, refused: OpenRefused, **outcome: object) -> None:
        """Records that a front end refused a request by itself, before anything was asked for here.

        `outcome` is added to the record.
        """
        live = self._begin(request)
        live.outcome.update(outcome)
        self._recorded.refused(live, refused)

    def turned_down(self, caller: Caller, frontend: str, agent: str, target: Target, refused: OpenRefused) -> None:
        """Counts and records that a session refused an open by itself. The records are folded, since a box can ask as
        often as it likes.
        """
        self._records.turned_down(caller, frontend, agent, target, refused)
        self._recorded.counts.answered(frontend, refused.code, 0.0)

    # Internal

    def _begin(self, request: OpenRequest) -> LiveOpen:
        bind_contextvars(trace_id=request.trace_id)
        live = self._live.begin(request)
        # Without a deadline: what ends the opening of an open is what ends any wait at its deadline.
        live.scope = asyncio.timeout(None)
        return live

    def _stand(self, live: LiveOpen) -> None:
        """Ends an open as soon as nothing allows it any more.

        Raises:
            OpenRefused: nothing does already.
        """
        caller = live.request.caller
        live.hold = hold = self.standing.hold(caller, live.end, partial(self._policed.objection, live))
        if hold.caller is not caller:
            live.request = replace(live.request, caller=hold.caller)

    async def _routed(self, live: LiveOpen) -> Stream:
        await self._pace.turn(live.request.caller, live.request.deadline_s)
        live.permitted = self._routes(live.request)
        return await self._policed.open(live)

    def _routes(self, request: OpenRequest) -> list[Permitted]:
        if request.route is not None:
            routes = [request.route]
        elif request.via:
            routes = [Route(request.via, parse_target(request.asked))]
        else:
            routes = self.routing.routes(request.asked)
        return [Permitted(route, "") for route in routes]

    async def _serve(self, live: LiveOpen, serve: Serve) -> None:
        assert live.scope is not None

        def opened(stream: Stream) -> None:
            self._recorded.opened(live, stream)
            self._policed.check_resolved(live, stream)

        try:
            async with live.scope:
                await serve(opened)
        except TimeoutError:
            if live.ended_by is None:
                raise
            raise live.ended_by from None

    def _not_opened(self, live: LiveOpen, error: BaseException) -> None:
        """Records why there is no stream. Does nothing when there is one, whose end is recorded when it comes."""
        live.scope = None
        if live.stream is None:
            self._recorded.refused(live, reason_of(error))


def reason_of(error: BaseException) -> OpenRefused:
    """Returns why an open was not carried out, in words for a record."""
    if isinstance(error, OpenRefused):
        return error
    if isinstance(error, StreamError):
        return OpenRefused(str(error), error.code, error.fault)
    if isinstance(error, asyncio.CancelledError):
        if error.args == (GAVE_UP,):
            return OpenRefused(GAVE_UP, Code.CANCELLED)
        return OpenRefused("the server is stopping", Code.SHUTTING_DOWN)
    return OpenRefused("a fault of the server, whose log says more", Code.INTERNAL)
