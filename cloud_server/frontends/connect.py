"""HTTP CONNECT: the front end for kube-apiserver, kubectl's proxy-url, curl, ssh and anything else that knows a proxy.

On the unix socket whoever may open it is trusted (mode 0660); over TLS a client certificate or Proxy-Authorization is
asked for. Errors stand in the reason phrase, since that is all that kube-apiserver shows; an answer comes within the
deadline.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable

from cloud_server.frontends.audit import log_refused, log_stream
from cloud_server.frontends.connect_name import parse_connect_name
from cloud_server.frontends.opener import Opener
from cloud_server.frontends.pending import open_unless_gone
from cloud_server.frontends.status import http_status, reason_phrase
from tunnel.aio.conn import Conn
from tunnel.aio.http1 import Request, ServerConnection
from tunnel.aio.splice import splice
from tunnel.core.errors import OpenRefused

FRONTEND = "connect"
HEAD_TIMEOUT_S = 10.0
MAX_HEAD_BYTES = 16 * 1024

Authenticate = Callable[[str | None, str | None], str | None]
"""From the URI of a client certificate and a bearer token to the user's name; None for nobody we know."""


class ConnectFrontend:
    """Serves connections that begin with CONNECT."""

    def __init__(self, opener: Opener, authenticate: Authenticate, *, deadline_s: float) -> None:
        """`deadline_s`: within which every request is answered."""
        self._opener = opener
        self._authenticate = authenticate
        self._deadline_s = deadline_s

    # Public

    async def handle_unix(self, conn: Conn) -> None:
        """Serve a connection to the unix socket."""
        await self._handle(conn, lambda _: conn.peer)

    async def handle_tls(self, conn: Conn) -> None:
        """Serve a TLS connection."""
        await self._handle(conn, lambda request: self._authenticate(conn.tls_peer_spiffe, proxy_token(request)))

    # Internal

    async def _handle(self, conn: Conn, identify: Callable[[Request], str | None]) -> None:
        http = ServerConnection(conn, MAX_HEAD_BYTES)
        try:
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                request = await http.next_request()
        except TimeoutError:
            await _answer(http, 408, "no request came in time")
            return
        if request is None:
            return
        user = identify(request)
        if user is None:
            await _answer(
                http,
                407,
                "a client certificate or Proxy-Authorization of a known user is needed",
                [("proxy-authenticate", 'Basic realm="longline"'), ("proxy-authenticate", "Bearer")],
            )
        elif request.method != "CONNECT":
            await _answer(http, 405, "only CONNECT is served here", [("allow", "CONNECT")])
        else:
            await self._connect(conn, http, request, user)

    async def _connect(self, conn: Conn, http: ServerConnection, request: Request, user: str) -> None:
        agent = ""
        try:
            agent, target = parse_connect_name(request.target)
            opening = self._opener.open(agent, target, principal=user, frontend=FRONTEND, deadline_s=self._deadline_s)
            stream = await open_unless_gone(opening, http.wait_client_gone())
        except OpenRefused as refused:
            log_refused(FRONTEND, user=user, peer=conn.peer, agent=agent, target=request.target, refused=refused)
            await _answer(http, http_status(refused.code), str(refused))
            return
        if stream is None:
            return
        try:
            early = await http.accept_connect()
            detached = conn.detach()
        except BaseException:
            stream.reset()
            raise
        peer = conn.peer
        result = await splice(stream, detached._replace(leftover=early + detached.leftover))
        log_stream(
            FRONTEND,
            user=user,
            peer=peer,
            agent=agent,
            target=target,
            resolved=stream.resolved_address,
            result=result,
        )


def proxy_token(request: Request) -> str | None:
    """The token in Proxy-Authorization: as Bearer, or as the password of Basic; None when there is none."""
    scheme, _, value = (request.headers.get("proxy-authorization") or "").partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip() or None
        case "basic":
            try:
                _, _, password = base64.b64decode(value, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                return None
            return password or None
        case _:
            return None


async def _answer(http: ServerConnection, status: int, text: str, headers: list[tuple[str, str]] | None = None) -> None:
    await http.respond(
        status,
        [("content-type", "text/plain; charset=utf-8"), ("connection", "close"), *(headers or [])],
        f"{text}\n".encode(),
        reason=reason_phrase(text),
    )
