"""Pings a quiet client, and says when the client is dead.

A load balancer between us and a client forgets a connection that is silent; TCP's own keepalive never passes it. A
client that does not answer is not dead for that: it may be stopped (Ctrl-Z), and goes on when its user wants. Dead is
one whose host, or whose balancer, does not even acknowledge what we send.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Protocol

HOST_SILENT_S = 150.0
"""Seconds of silence of the client's kernel that mean that it is gone. A kernel whose buffers are full answers our
probes, of which Linux sends one in two minutes at least (TCP_RTO_MAX).
"""
_TCP_INFO_BYTES = 104
_LAST_ACK_RECV_OFFSET = 56
"""The offset of `tcpi_last_ack_recv` in Linux' `struct tcp_info`: milliseconds since the last acknowledgement."""


class Asked(Protocol):
    """The connection to a client that is watched."""

    @property
    def streams(self) -> int:
        """Returns how many streams wait for something; without any, silence means nothing."""
        ...

    def ping(self) -> None:
        """Sends a ping, which the client must answer."""
        ...

    def host_silent_s(self) -> float:
        """Returns for how many seconds the client's kernel has said nothing; see the function of that name."""
        ...

    def client_dead(self) -> None:
        """Ends the connection, since the client is gone."""
        ...


class KeepAlive:
    """The watch over one connection's silence, in both directions."""

    __slots__ = ("_asked_s", "_connection", "_heard_s", "_interval_s", "_loop", "_said_s", "_timer")

    def __init__(self, connection: Asked, interval_s: float) -> None:
        """Watches from now on. `interval_s` is the number of seconds of silence after which the client is pinged."""
        self._connection = connection
        self._interval_s = interval_s
        self._loop = asyncio.get_running_loop()
        self._heard_s = self._said_s = self._asked_s = self._loop.time()
        self._timer = self._loop.call_later(interval_s, self._look)

    def heard(self) -> None:
        """Notes that bytes came from the client."""
        self._heard_s = self._loop.time()

    def said(self) -> None:
        """Notes that bytes went to the client."""
        self._said_s = self._loop.time()

    def stop(self) -> None:
        """Stops watching."""
        self._timer.cancel()

    # Internal

    def _look(self) -> None:
        now_s = self._loop.time()
        if self._connection.streams and self._due_s() <= now_s:
            if min(now_s - self._heard_s, self._connection.host_silent_s()) > HOST_SILENT_S:
                self._connection.client_dead()
                return
            self._asked_s = now_s  # one question a time, even when nothing can be written
            self._connection.ping()
        self._timer = self._loop.call_at(max(self._due_s(), now_s + self._interval_s / 8), self._look)

    def _due_s(self) -> float:
        return max(min(self._heard_s, self._said_s), self._asked_s) + self._interval_s


def host_silent_s(transport: asyncio.Transport) -> float:
    """Returns how many seconds ago the kernel at the other end of a TCP connection acknowledged anything; 0.0 for other
    sockets.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return 0.0
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES)
    (since_ms,) = struct.unpack_from("=I", info, _LAST_ACK_RECV_OFFSET)
    return float(since_ms) / 1000
