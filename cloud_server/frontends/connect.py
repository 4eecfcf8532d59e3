"""HTTP CONNECT: the front end for kube-apiserver, kubectl's proxy-url, curl, ssh and anything else that knows a proxy.

On the unix socket whoever may open it is trusted (mode 0660); over TLS a client certificate or Proxy-Authorization is
asked for. Errors stand in the reason phrase, since that is all that kube-apiserver shows; an answer comes within the
deadline.
"""

from __future__ import annotations

import asyncio
import base64
import fcntl
import select
import socket
import struct
import termios
from collections.abc import Awaitable, Callable

from cloud_server.frontends.http_answers import http_status, reason_phrase
from cloud_server.frontends.logins import RefusedLogins
from cloud_server.opens.door import Door
from cloud_server.opens.request import OpenRequest
from cloud_server.routing.names import agent_meant
from cloud_server.trust.authenticator import Authenticator, LoginRefused
from cloud_server.trust.caller import Caller
from tunnel.aio.http.http1 import HttpError, Refusal, Request, ServerConnection
from tunnel.aio.sessions.carry import carry
from tunnel.aio.sockets.conn import Conn
from tunnel.core.wire.errors import OpenRefused
from tunnel.core.wire.faults import CONNECT_INVALID, CREDENTIAL_MISSING, NAME_INVALID, coded

FRONTEND = "connect"
HEAD_TIMEOUT_S = 9.0
"""Seconds for the head of a request. The listener ends whoever has not shown who they are within 10 (strangers.py); an
answer comes before that.
"""
MAX_HEAD_BYTES = 16 * 1024
"""The longest head of a request: a line, and a credential, which is an ID token of some kilobytes at the most."""
TAKEN_S = 0.05
"""Seconds that a target's first bytes wait at most for the client to have read our 200."""
CLOSE_POLL_S = 0.1
"""Seconds between two looks at a half-closed unix socket: its full close raises no event of its own."""


class ConnectFrontend:
    """The front end that serves connections that begin with CONNECT."""

    def __init__(self, door: Door, authenticator: Authenticator, logins: RefusedLogins, *, deadline_s: float) -> None:
        """Opens streams through `door`. `deadline_s` is the number of seconds within which every request is answered;
        it may be changed for requests that come later.
        """
        self._door = door
        self._authenticator = authenticator
        self._logins = logins
        self.deadline_s = deadline_s

    # Public

    async def handle_unix(self, conn: Conn) -> None:
        """Serves a connection to the unix socket, whose peer is trusted."""
        await self._handle(conn, lambda _: self._by_socket(conn))

    async def handle_tls(self, conn: Conn) -> None:
        """Serves a TLS connection, whose client must show a certificate or a token."""
        await self._handle(conn, lambda request: self._by_credential(conn, request))

    # Internal

    async def _by_credential(self, conn: Conn, request: Request) -> Caller:
        token = proxy_token(request)
        await self._authenticator.ready_for(token)
        return self._authenticator.by_either(conn.tls_peer, token, conn.peer)

    async def _by_socket(self, conn: Conn) -> Caller:
        peer = conn.unix_peer
        assert peer is not None
        return self._authenticator.by_unix_peer(peer.uid, peer.pid, konnectivity=False)

    async def _handle(self, conn: Conn, identify: Callable[[Request], Awaitable[Caller]]) -> None:
        http = ServerConnection(conn, MAX_HEAD_BYTES, refusal=_refusal)
        try:
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                request = await http.next_request()
        except TimeoutError:
            await _answer(http, 408, coded("no request came in time", CONNECT_INVALID))
            return
        if request is None:
            return
        try:
            caller = await identify(request)
        except LoginRefused as refused:
            await self._logins.turn_away(FRONTEND, conn.peer, refused, conn.lost)
            said = "a client certificate or Proxy-Authorization of a known user is needed"
            text = coded(said if refused.fault is CREDENTIAL_MISSING else refused.text, refused.fault)
            wanted = [("proxy-authenticate", 'Basic realm="longline"'), ("proxy-authenticate", "Bearer")]
            await _answer(http, 407, text, wanted)
            return
        conn.known()
        if _head_bytes(request) > MAX_HEAD_BYTES:  # it came in one piece, so that it was never incomplete
            text = f"the request's head is longer than {MAX_HEAD_BYTES} bytes"
            await _answer(http, 431, coded(text, CONNECT_INVALID))
        elif request.method != "CONNECT":
            text = coded("only CONNECT is served here", CONNECT_INVALID)
            await _answer(http, 405, text, [("allow", "CONNECT")])
        elif request.headers.get("transfer-encoding") or request.headers.get("content-length") not in (None, "0"):
            # What follows would be a body to one parser and the tunnel's first bytes to another.
            await _answer(http, 400, coded("a CONNECT request has no body", CONNECT_INVALID))
        else:
            await self._connect(conn, http, request, caller)

    async def _connect(self, conn: Conn, http: ServerConnection, request: Request, caller: Caller) -> None:
        asking = OpenRequest(
            caller=caller,
            frontend=FRONTEND,
            peer=conn.peer,
            asked=request.target,
            via=proxy_via(request),
            deadline_s=self.deadline_s,
        )
        try:
            live = await self._door.open(asking, _given_up(conn, http))
        except OpenRefused as refused:
            status = 400 if refused.fault is NAME_INVALID else http_status(refused.code)
            await _answer(http, status, coded(str(refused), refused.fault))
            return
        if live is not None:
            await carry(live.opened(), conn, lambda: _accept(conn, http))


async def _accept(conn: Conn, http: ServerConnection) -> bytes:
    early = await http.accept_connect()
    await _until_taken(conn)
    return early


def proxy_token(request: Request) -> str | None:
    """Returns the token in Proxy-Authorization: as Bearer, or as the password or the only name of Basic; None when
    there is none.

    Basic is what proxy URLs turn into: `https://anyone:TOKEN@host` and `https://TOKEN@host`.
    """
    scheme, _, value = (request.headers.get("proxy-authorization") or "").partition(" ")
    if scheme.lower() == "bearer":
        return value.strip() or None
    user, password = _basic(request)
    return password or user or None


def proxy_via(request: Request) -> str:
    """Returns the agent in whose network the target is meant, from the name in a proxy URL; empty when it names none.

    `https://site-a.longline:TOKEN@host` makes the proxy one of site-a's: `127.0.0.1:6443` is that of its box.
    """
    return agent_meant(_basic(request)[0])


def _basic(request: Request) -> tuple[str, str]:
    """Returns the name and password of Basic in Proxy-Authorization; both are empty when there are none."""
    scheme, _, value = (request.headers.get("proxy-authorization") or "").partition(" ")
    if scheme.lower() != "basic":
        return "", ""
    try:
        user, _, password = base64.b64decode(value, validate=True).decode().partition(":")
    except ValueError:  # no base64, or no UTF-8 inside
        return "", ""
    return user, password


def _head_bytes(request: Request) -> int:
    return len(request.target) + sum(len(name) + len(value) + 4 for name, value in request.headers)


async def _given_up(conn: Conn, http: ServerConnection) -> None:
    """Waits until nobody can be there for an answer. A local client that only finished its own direction still is
    there.
    """
    await http.wait_client_gone()
    sock = _unix_socket(conn)
    while sock is not None and not conn.transport.is_closing() and not _fully_closed(sock):  # noqa: ASYNC110
        await asyncio.sleep(CLOSE_POLL_S)  # the kernel has no event for it that could be awaited


async def _until_taken(conn: Conn) -> None:
    """Waits until the client has read all that we wrote, where the kernel can tell: on a unix socket. Waits at most
    `TAKEN_S`.

    kube-apiserver gives up when the target's first bytes come glued to our 200.
    """
    sock = _unix_socket(conn)
    if sock is None:
        return
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + TAKEN_S
    pause_s = 0.0
    while not conn.transport.is_closing() and _unread_bytes(sock) and loop.time() < deadline_s:
        await asyncio.sleep(pause_s)
        pause_s = 0.001


def _unix_socket(conn: Conn) -> socket.socket | None:
    sock: socket.socket = conn.transport.get_extra_info("socket")
    return sock if sock.family == socket.AF_UNIX else None


def _fully_closed(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock.fileno(), 0)  # a hang-up is told without being asked for
    return bool(poll.poll(0))


def _unread_bytes(sock: socket.socket) -> int:
    unread: int = struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
    return unread


def _refusal(error: HttpError) -> Refusal:
    """Returns the answer to what cannot be read as a request."""
    text = coded(error.text, CONNECT_INVALID)
    return Refusal("text/plain; charset=utf-8", f"{text}\n".encode(), reason_phrase(text))


async def _answer(http: ServerConnection, status: int, text: str, headers: list[tuple[str, str]] | None = None) -> None:
    await http.respond(
        status,
        [("content-type", "text/plain; charset=utf-8"), ("connection", "close"), *(headers or [])],
        f"{text}\n".encode(),
        reason=reason_phrase(text),
    )
