"""What the servers of either version of HTTP share: whom they ask, and how long they wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tunnel.aio.http.exchange import Exchange
from tunnel.aio.http.http1 import HttpError, Refusal, Request
from tunnel.aio.sockets.conn import Conn, TlsPeer

HEAD_TIMEOUT_S = 9.0
"""Seconds until the first request of a connection, which may still be anybody's; by HTTP/2 until the first that is a
user's. A listener ends whoever has not shown who they are within 10 (strangers.py), whatever they were answered.
"""
IDLE_TIMEOUT_S = 300.0
"""Seconds that a connection may be idle between two requests."""

Serve = Callable[[Conn, Exchange, Request], Awaitable[None]]
"""A function that answers one exchange of a connection. It may raise a StreamError when the client is gone."""
Render = Callable[[HttpError], Refusal]
"""A function that returns the answer to what is no request, or too long for one."""
IsUser = Callable[[TlsPeer], bool]
"""A function that returns whether the spiffe:// name in a client's certificate is a user's; the name is None when there
is no certificate. Boxes have certificates of the same authority, and are strangers here.
"""


@dataclass(frozen=True, slots=True)
class Served:
    """What a front end does with connections."""

    serve: Serve
    render: Render
    is_user: IsUser
