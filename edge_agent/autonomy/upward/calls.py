"""Asks the API server for lists and watches, of which a node has hundreds, over as few connections as can be.

A kubelet watches each Secret and ConfigMap that its pods name, and all of that over one HTTP/2 connection. A proxy that
had a connection for each would cost every API server a hundred times as many. So they share connections here, too:

1. A new list or watch goes over a connection that has room for it. When there is none, one is dialled, once for all who
   wait for it.
2. A connection takes nothing new after FRESH_S, and ends with the last of what it carries: the credentials that it was
   made with are exchanged now and then, as are API servers behind a balancer. So it does when these are not accepted,
   and connections are to be made anew.
3. With an API server, or a balancer, that speaks HTTP/1.1 alone, each has a connection of its own after all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from edge_agent.autonomy.upward.lines import Lines
from tunnel.aio.http.http1 import HeaderItems, Response
from tunnel.aio.http.http2_client import Http2Client
from tunnel.aio.process.tasks import TaskOwner

FRESH_S = 600.0
"""Seconds for which a connection takes new lists and watches: as long as a watch runs at the most."""


class Body(Protocol):
    """What is read of an answer."""

    @property
    def has_more(self) -> bool:
        """Returns whether more has come than was read."""
        ...

    async def read_chunk(self) -> bytes:
        """Waits for a part of the body and returns it; `b""` is its proper end.

        Raises:
            StreamError: it broke off.
        """
        ...


@dataclass(slots=True, eq=False)
class _Shared:
    client: Http2Client
    since_s: float
    """When it was made, on the loop's clock."""
    generation: int
    """That of its `Lines`, when it was begun."""


class Calls:
    """The lists and watches of one identity at one API server."""

    def __init__(self, lines: Lines) -> None:
        """Dials nothing yet. `lines` are the connections with this identity, and hear of each answer."""
        self._lines = lines
        self._shared: list[_Shared] = []
        self._dialling = asyncio.Lock()
        self._failures = 0
        """How many dials have failed."""
        self._failure = ""
        """Why the last one did."""
        self._is_plain = False
        """Whether the API server speaks HTTP/1.1 alone."""
        self._tasks = TaskOwner("connections to the API server")

    @property
    def connections(self) -> int:
        """Returns how many connections are shared."""
        return len(self._shared)

    @asynccontextmanager
    async def get(self, authority: str, target: str, headers: HeaderItems) -> AsyncIterator[tuple[Response, Body]]:
        """Asks, and returns the head of the answer and what reads its body. The request ends with the block.

        Raises:
            OSError: there is no way to the API server.
            StreamError: there is no answer.
        """
        shared = await self._with_room()
        if shared is None:
            line = await self._lines.take()
            try:
                await line.http.start("GET", target, [("host", authority), *headers])
                await line.http.finish()
                yield await line.response(), line.http
            finally:
                self._lines.give_back(line)
            return
        answer = shared.client.get(authority, target, headers)
        try:
            head = await answer.response()
            self._lines.on_answer(head.status)
            yield head, answer
        finally:
            answer.close()
            self._tidy()

    def cut(self) -> None:
        """Ends all connections that are shared. The next one may lead to an API server that speaks another HTTP."""
        self._is_plain = False
        for shared in self._shared:
            shared.client.close()

    async def aclose(self) -> None:
        """Ends all connections."""
        self.cut()
        await self._tasks.aclose()

    # Internal

    async def _with_room(self) -> _Shared | None:
        """Returns a connection that takes one more; None where there are no such connections."""
        failures = self._failures
        async with self._dialling:
            if self._is_plain:
                return None
            now_s = asyncio.get_running_loop().time()
            for shared in self._shared:
                if shared.client.has_room and self._is_fresh(shared, now_s):
                    return shared
            generation = self._lines.generation
            if self._failures != failures:  # who waited for a dial that failed does not try it once more
                raise OSError(self._failure)
            try:
                conn = await self._lines.dial(http2=True)
            except OSError as error:
                self._failures, self._failure = self._failures + 1, str(error) or type(error).__name__
                raise
            if conn.transport.get_extra_info("alpn_protocol") != "h2":
                self._is_plain = True
                conn.reset()
                return None
            made = _Shared(Http2Client(conn), now_s, generation)
            self._shared.append(made)
            self._tasks.spawn("read", self._run(made))
            return made

    async def _run(self, shared: _Shared) -> None:
        try:
            await shared.client.run()
        finally:
            self._shared.remove(shared)

    def _tidy(self) -> None:
        """Ends connections that carry nothing any more and take nothing new."""
        now_s = asyncio.get_running_loop().time()
        for shared in self._shared:
            if not shared.client.streams and not self._is_fresh(shared, now_s):
                shared.client.close()

    def _is_fresh(self, shared: _Shared, now_s: float) -> bool:
        return shared.generation == self._lines.generation and now_s - shared.since_s < FRESH_S
