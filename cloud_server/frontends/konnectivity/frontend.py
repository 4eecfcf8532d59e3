"""Serves the ProxyService on a socket: each call is a tunnel, and each connection may carry many."""

from __future__ import annotations

import asyncio
import itertools

from cloud_server.frontends.konnectivity.call import ASSEMBLY_BYTES, Call, refusal_of
from cloud_server.frontends.konnectivity.tunnel import Service, Tunnel
from cloud_server.opens.door import Door
from cloud_server.trust.authenticator import Authenticator
from tunnel.aio.http.http2_connection import Http2Connection
from tunnel.aio.http.http2_limits import Http2Limits
from tunnel.aio.http.http2_stream import Http2Stream
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sockets.conn import Conn
from tunnel.core.streams.budget import Budget

PATH = b"/ProxyService/Proxy"
LIMITS = Http2Limits(
    max_streams=200,
    window_bytes=256 * 1024,
    head_bytes=16 * 1024,
    heads_bytes=200 * 16 * 1024,
    first_s=30.0,
    idle_s=30.0,
    ping_s=None,  # nothing forgets a quiet unix socket
)
"""The limits of one connection. A client may leave 50 MiB here in its windows."""


class KonnectivityFrontend:
    """The front end that serves connections that begin with HTTP/2's preface."""

    def __init__(self, door: Door, authenticator: Authenticator, *, deadline_s: float) -> None:
        """Opens streams through `door`. `deadline_s` is the number of seconds within which every dial is answered; it
        may be changed for dials that come later.
        """
        self._door = door
        self.deadline_s = deadline_s
        self._authenticator = authenticator
        self._connections: set[Http2Connection] = set()
        self._draining = False
        self._connect_ids = itertools.count(1)

    @property
    def connections(self) -> int:
        """Returns the number of connections that are being served."""
        return len(self._connections)

    @property
    def calls(self) -> int:
        """Returns the number of tunnels, counting those that are still being dialled."""
        return sum(connection.streams for connection in self._connections)

    async def handle(self, conn: Conn) -> None:
        """Serves a connection until it ends, and its tunnels with it."""
        peer, socket_peer = conn.peer, conn.unix_peer
        uid, pid = (socket_peer.uid, socket_peer.pid) if socket_peer is not None else (-1, 0)
        caller = self._authenticator.by_unix_peer(uid, pid, konnectivity=True)
        detached = conn.detach()
        tunnels = TaskOwner("konnectivity")
        assembly = Budget(total_bytes=ASSEMBLY_BYTES)

        def on_request(stream: Http2Stream) -> None:
            refusal = refusal_of(stream.headers, PATH)
            if refusal is not None:
                stream.finish(refusal)
                return
            call = Call(stream, assembly)
            tunnel = Tunnel(call, Service(self._door, self.deadline_s), next(self._connect_ids), caller, peer)
            call.begin(tunnel)  # now: what comes in the same breath as the request is the tunnel's already
            tunnels.spawn("tunnel", tunnel.run())

        connection = Http2Connection(detached.transport, peer, LIMITS, on_request)
        self._connections.add(connection)
        try:
            connection.start(detached.leftover, at_eof=detached.at_eof)
            if self._draining:
                connection.drain()
            await asyncio.shield(connection.done)
        finally:
            self._connections.discard(connection)
            connection.close()
            await tunnels.finished()

    def drain(self) -> None:
        """Asks all clients to make their next calls on other connections, also those that are still coming."""
        self._draining = True
        for connection in self._connections:
            connection.drain()
