"""Tells the server anew what the box is: other labels, services and facts reach it without a new session."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from protos import tunnel_pb2
from tunnel.aio.sessions.session import TunnelSession
from tunnel.core.wire.errors import StreamError
from tunnel.core.wire.features import NODE_SERVICE
from tunnel.core.wire.names import NODE
from tunnel.core.wire.target import ServiceTarget

GATHER_S = 0.5
"""The seconds within which changes are gathered, to be told together."""
RETRY_S = 10.0
"""The seconds until the next try after a telling that failed. The next Hello brings all of it anyway."""
ANSWER_S = 10.0

_log = structlog.get_logger("edge.telling")


class Telling:
    """Tells the server of changes, as a task beside the link; `changed` wakes it."""

    def __init__(
        self,
        session: Callable[[], TunnelSession | None],
        describe: Callable[[], tunnel_pb2.Node],
        greet_anew: Callable[[], None],
    ) -> None:
        """Takes the ways to the server.

        Args:
            session: returns the session to tell in; None while there is none, and then Hello will tell.
            describe: reads the box; blocking, but only for files of the kernel.
            greet_anew: has a new Hello sent in the session that there is, for servers that know no other way.
        """
        self._session = session
        self._describe = describe
        self._greet_anew = greet_anew
        self._woken = asyncio.Event()
        self._must_greet = False
        self._greeted_with: tuple[dict[str, str], list[str]] | None = None
        """The labels and services of the last Hello; None before the first."""

    def for_hello(self) -> tunnel_pb2.Node:
        """Reads the box for a Hello, which then need not be told of it again. Blocks, as `describe` does."""
        node = self._describe()
        self._greeted_with = _worth_a_greeting(node)
        return node

    def changed(self, *, must_arrive: bool = False) -> None:
        """Notes that something is not as the server knows it, and wakes `run` to tell it.

        Args:
            must_arrive: a server that knows no other way is greeted anew for this. Facts are not worth that.
        """
        self._must_greet |= must_arrive
        self._woken.set()

    async def run(self) -> None:
        """Tells the server of changes until it is cancelled."""
        while True:
            await self._woken.wait()
            await asyncio.sleep(GATHER_S)
            self._woken.clear()
            session = self._session()
            if session is None or not session.attached:
                continue
            must_greet, self._must_greet = self._must_greet, False
            if NODE_SERVICE not in session.core.features:
                if must_greet and _worth_a_greeting(await asyncio.to_thread(self._describe)) != self._greeted_with:
                    _log.info("the server is told by a new greeting: it is of an older version")
                    self._greet_anew()
                continue
            try:
                await self._tell(session)
            except (StreamError, TimeoutError) as error:
                _log.info("the server was not told of a change, trying again", reason=str(error) or "no answer")
                await asyncio.sleep(RETRY_S)
                self._woken.set()

    async def _tell(self, session: TunnelSession) -> None:
        node = await asyncio.to_thread(self._describe)
        async with asyncio.timeout(ANSWER_S):
            stream = await session.open(ServiceTarget(NODE), deadline_s=ANSWER_S)
            try:
                await stream.write(node.SerializeToString())
                await stream.write_eof()
                await stream.read()
            except BaseException:
                stream.reset()
                raise
            await stream.aclose()


def _worth_a_greeting(node: tunnel_pb2.Node) -> tuple[dict[str, str], list[str]]:
    return dict(node.labels), list(node.services)
