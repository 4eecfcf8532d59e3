"""Serves `longline/node`, the service by which an agent sends its Node anew, with other labels, services or facts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from protos import tunnel_pb2
from tunnel.aio.sessions.incoming import Acceptor, IncomingStream
from tunnel.core.path.rate import TokenBucket
from tunnel.core.wire.errors import Code, OpenRefused, RemoteProtocolError
from tunnel.core.wire.handshake import decode_node
from tunnel.core.wire.limits import MAX_NODE_BYTES
from tunnel.core.wire.names import NODE
from tunnel.core.wire.spoken import spoken_s
from tunnel.core.wire.target import ServiceTarget

PER_S = 1.0
BURST = 10
"""How many Nodes are taken at once; after that `PER_S` each second. Each makes the objects of the fleet API anew, and
wakes whoever watches them.
"""
READ_S = 10.0
"""Seconds within which the whole Node must have come: it is one packet."""


class NodeService:
    """Takes the Nodes that one agent sends, and leaves all other streams that it opens to the next acceptor."""

    def __init__(self, took: Callable[[tunnel_pb2.Node], None], others: Acceptor) -> None:
        """Serves one agent. `took` is called with each Node that came whole and within its bounds; `others` gets every
        stream to something else.
        """
        self._took = took
        self._others = others
        self._rate: TokenBucket | None = None

    async def accept(self, incoming: IncomingStream) -> None:
        """Serves one stream that the agent opened.

        Raises:
            StreamError: it may not be served, or cannot.
        """
        if incoming.target != ServiceTarget(NODE):
            await self._others(incoming)
            return
        now_s = asyncio.get_running_loop().time()
        if self._rate is None:  # not before: thousands of agents have nothing to tell
            self._rate = TokenBucket(PER_S, BURST, now_s)
        if not self._rate.take(now_s):
            raise OpenRefused("the box tells of itself too often", Code.LIMIT_EXCEEDED)
        stream = incoming.accept()
        told = bytearray()
        try:
            async with asyncio.timeout(READ_S):
                while len(told) <= MAX_NODE_BYTES and (data := await stream.read()):
                    told += data
            self._took(decode_node(bytes(told)))
        except TimeoutError:
            raise OpenRefused(f"not all of it came within {spoken_s(READ_S)}", Code.DEADLINE) from None
        except RemoteProtocolError as error:
            raise OpenRefused(str(error), Code.PROTOCOL_ERROR) from error
        await stream.aclose()
