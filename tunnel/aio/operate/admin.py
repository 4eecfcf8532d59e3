"""The admin socket: a unix socket on which a running daemon tells how it stands, and is told what to do.

JSON over HTTP/1.1 under `/longline/v1/`. The daemon registers what it answers in `Routes`, which know nothing of the
socket, so that `answer` can serve the same ones on another listener, to callers who prove themselves in another way.
Here it is the kernel that says who calls: root and the daemon's own user may, nobody else.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote

import orjson
import structlog

from tunnel.aio.process.turns import Turns
from tunnel.aio.sockets.conn import Conn, UnixPeer
from tunnel.aio.sockets.listener import Limits, Listener
from tunnel.core.wire.errors import StreamClosed, StreamError
from tunnel.core.wire.faults import ADMIN_REFUSED, BUG, REQUEST_INVALID
from tunnel.core.wire.principal import Principal, PrincipalKind
from tunnel.core.wire.spoken import spoken_s

SOCKET_NAME = "admin.sock"
"""The name of the socket in the daemon's state folder."""
PREFIX = "/longline/v1/"
SOCKET_MODE = 0o600
MAX_CONNECTIONS = 64
"""The most connections at once: commands, and a dozen people who watch. Who may connect may do anything to the daemon;
this is for a loop in somebody's script.
"""
MAX_BODY_BYTES = 64 * 1024
"""The longest body of a request. The longest that we send is a token's with its labels: some hundred bytes."""
IDLE_S = 60.0
"""Seconds that a connection may wait for its next request."""
ANSWER_S = 30.0
"""Seconds that an answer that is no stream may take. A disk that hangs must not hang the command with it."""
WHOLE_S = 300.0
"""Seconds that a client may take to read a whole answer: that of 10,000 agents is some 10 MiB, perhaps over a slow
line.
"""
UNREAD_S = 30.0
"""Seconds that a client may leave a line of a stream unread: a pager left open must not hold the daemon's memory."""
_AS_JSON = orjson.OPT_UTC_Z | orjson.OPT_NAIVE_UTC
_JSON = ("content-type", "application/json")
_NDJSON = ("content-type", "application/x-ndjson")
_UNLIMITED: Mapping[str, object] = MappingProxyType({})

if TYPE_CHECKING:
    # At run time only once somebody calls: h11 costs 1.5 MB, and on most days nobody asks an agent.
    from tunnel.aio.http.http1 import HeaderItems, HttpError, Refusal, Request, ServerConnection

_log = structlog.get_logger("tunnel.admin")


class AdminError(Exception):
    """An error that answers a call.

    Attributes:
        status: the HTTP status.
        text: what is wrong, for the person at the command line.
        code: the error's number in the documentation, such as `LL1203`; empty for none.
        remedy: what to type or do; empty where `text` says it.
    """

    def __init__(self, status: int, text: str, *, code: str = "", remedy: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.code = code
        self.remedy = remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminCall:
    """One request, as a route's handler gets it."""

    principal: Principal
    """The one who asks; for the record of what was done."""
    peer: str
    """The address that the call comes from, for logs."""
    limits: Mapping[str, object]
    """The limits of the credential, `until` and `scope`; empty where none was shown."""
    values: Mapping[str, str]
    """The part of the path that stands for each `{name}` of the route."""
    query: Mapping[str, str]
    """The query; of a name that comes twice, the last value."""
    body: object
    """The decoded JSON of the body; None without a body."""

    def flag(self, name: str) -> bool:
        """Returns whether the query says `name=1`.

        Raises:
            AdminError: it says something that is neither yes nor no.
        """
        value = self.query.get(name, "0")
        if value not in ("0", "1", "true", "false"):
            raise AdminError(400, f"{name}={value[:40]!r} in the query is neither 1 nor 0")
        return value in ("1", "true")


Feed = AsyncGenerator[object, None]
"""Yields objects as they come, a line of JSON each. It is closed when its reader is gone; its end ends the answer."""


@dataclass(frozen=True, slots=True)
class Listing:
    """A JSON object that holds one list, which may be long: it is encoded item by item, and others have their turns."""

    name: str
    """The key of the list."""
    items: AsyncIterable[object]


Handler = Callable[[AdminCall], Awaitable[object]]
"""Returns what is shown as JSON, a `Listing`, or a `Feed`; None is an answer without a body. It may raise an
AdminError.
"""


@dataclass(frozen=True, slots=True)
class _Route:
    method: str
    parts: tuple[str, ...]
    handler: Handler

    def match(self, parts: tuple[str, ...]) -> dict[str, str] | None:
        """Returns the values of the path's `{names}`; None if it is the path of another route."""
        if len(parts) != len(self.parts):
            return None
        values: dict[str, str] = {}
        for mine, given in zip(self.parts, parts, strict=True):
            if mine.startswith("{"):
                values[mine[1:-1]] = given
            elif mine != given:
                return None
        return values


class Routes:
    """The table of what a daemon answers, by method and path."""

    def __init__(self) -> None:
        self._routes: list[_Route] = []

    def add(self, method: str, path: str, handler: Handler) -> None:
        """Adds a route for `path`, which is what follows the prefix: `agents/{name}`.

        Raises:
            ValueError: the route was added before.
        """
        parts = tuple(path.split("/"))
        if any(route.method == method and route.parts == parts for route in self._routes):
            raise ValueError(f"{method} {path} is there already")
        self._routes.append(_Route(method, parts, handler))

    def paths(self) -> list[tuple[str, str]]:
        """Returns method and path of each route, in the order in which they were added."""
        return [(route.method, "/".join(route.parts)) for route in self._routes]

    def find(self, method: str, raw_path: str) -> tuple[Handler, dict[str, str]]:
        """Returns the handler that answers a request, and what stands for the `{names}` in its path.

        Args:
            method: the method of the request.
            raw_path: the path of the request, still percent-encoded.

        Raises:
            AdminError: nobody does: 404, or 405 where another method would be answered.
        """
        if not raw_path.startswith(PREFIX):
            raise AdminError(404, f"only paths under {PREFIX} are served here")
        parts = tuple(unquote(part) for part in raw_path.removeprefix(PREFIX).split("/"))
        others: list[str] = []
        for route in self._routes:
            if (values := route.match(parts)) is None:
                continue
            if route.method == method:
                return route.handler, values
            others.append(route.method)
        if others:
            raise AdminError(405, f"{method[:20]} is not served for this path, only {', '.join(sorted(others))}")
        raise AdminError(404, "this daemon does not know the path: is the command of another version?")


class Exchange(Protocol):
    """One request and its answer, over whatever version of HTTP."""

    async def read_body(self, max_bytes: int, /) -> bytes:
        """Reads the whole body of the request and returns it."""
        ...

    async def respond(self, status: int, headers: HeaderItems, body: bytes, /) -> None:
        """Answers with a whole body."""
        ...

    async def start(self, status: int, headers: HeaderItems, /) -> None:
        """Begins a streamed answer."""
        ...

    async def send(self, chunk: bytes, /) -> None:
        """Sends a part of a streamed answer."""
        ...

    async def finish(self) -> None:
        """Ends a streamed answer."""
        ...

    async def wait_client_gone(self) -> None:
        """Waits until the client is gone."""
        ...


async def answer(
    routes: Routes,
    exchange: Exchange,
    request: Request,
    principal: Principal,
    peer: str,
    limits: Mapping[str, object] = _UNLIMITED,
) -> None:
    """Answers one request.

    The caller has found out who asks, and whether they may.

    Args:
        routes: what may be asked.
        exchange: the exchange of the request.
        request: the request.
        principal: who asks.
        peer: the address that the request comes from.
        limits: see `AdminCall`.

    Raises:
        StreamError: the client is gone, broke HTTP, or did not read.
    """
    from tunnel.aio.http.http1 import HttpError

    try:
        async with asyncio.timeout(ANSWER_S):
            result = await _result(routes, exchange, request, principal, peer, limits)
            body = await _body(result)
    except AdminError as error:
        await _respond(exchange, error.status, [_JSON], _error(error.text, error.code, error.remedy))
        return
    except HttpError as error:
        await _respond(
            exchange, error.status, [_JSON, ("connection", "close")], _error(error.text, REQUEST_INVALID.code)
        )
        return
    except TimeoutError:
        text = f"the daemon has no answer within {spoken_s(ANSWER_S)}: its log may say what it waits for"
        await _respond(exchange, 504, [_JSON], _error(text))
        return
    except StreamError:
        raise
    except Exception:  # noqa: BLE001 - whatever it is, the command is told
        _log.exception(
            "a call of the admin API fails for a fault of the daemon", code=BUG.code, peer=peer, path=request.raw_path
        )
        await _respond(exchange, 500, [_JSON], _error("a fault of the daemon, whose log says more"))
        return
    if isinstance(result, AsyncGenerator):
        await _stream(exchange, result)
    elif result is None:
        await _respond(exchange, 204, [], b"")
    else:
        await _respond(exchange, 200, [_JSON], body)


class AdminServer:
    """The admin socket of one daemon: `open`, then `aclose`."""

    def __init__(self, routes: Routes, path: Path) -> None:
        """Prepares to serve `routes` on a socket at `path`."""
        self._routes = routes
        self._path = path
        self._listener = Listener("admin", self._handle, Limits(connections=MAX_CONNECTIONS))

    async def open(self) -> None:
        """Begins to listen. The socket of a daemon that is dead is replaced.

        Raises:
            ListenFailed: another daemon listens there, or the socket cannot be made.
        """
        await self._listener.listen_unix(self._path, mode=SOCKET_MODE)

    async def aclose(self) -> None:
        """Stops listening, removes the socket, and ends what runs."""
        await self._listener.aclose()

    async def _handle(self, conn: Conn) -> None:
        try:
            peer = conn.unix_peer
        except OSError:  # it is gone
            return
        assert peer is not None  # no other socket is listened on
        from tunnel.aio.http.http1 import ServerConnection

        http = ServerConnection(conn, refusal=_unread)
        while (request := await _next_request(http)) is not None:
            if peer.uid not in (0, os.geteuid()):
                await _refuse(http, peer)
                return
            await answer(self._routes, http, request, principal_of(peer), conn.peer)


def principal_of(peer: UnixPeer) -> Principal:
    """Returns a process of this machine as a principal: `local_process:uid:0`."""
    who = f"uid:{peer.uid}"
    return Principal(kind=PrincipalKind.LOCAL_PROCESS, name=who, proof=f"{who} pid:{peer.pid}")


# Internal


async def _next_request(http: ServerConnection) -> Request | None:
    try:
        async with asyncio.timeout(IDLE_S):
            return await http.next_request()
    except TimeoutError:
        return None


async def _refuse(http: ServerConnection, peer: UnixPeer) -> None:
    _log.warning(
        "a user who may not was refused at the admin socket", code=ADMIN_REFUSED.code, uid=peer.uid, pid=peer.pid
    )
    text = f"uid {peer.uid} may not command this daemon, only root and uid {os.geteuid()}, whose daemon it is"
    await http.respond(403, [_JSON, ("connection", "close")], _error(text))


def _unread(error: HttpError) -> Refusal:
    """Returns the answer to what cannot be read as a request."""
    from tunnel.aio.http.http1 import Refusal

    return Refusal(_JSON[1], _error(error.text, REQUEST_INVALID.code))


async def _result(
    routes: Routes, exchange: Exchange, request: Request, principal: Principal, peer: str, limits: Mapping[str, object]
) -> object:
    handler, values = routes.find(request.method, request.raw_path)
    raw = await exchange.read_body(MAX_BODY_BYTES)
    try:
        body = orjson.loads(raw) if raw else None
    except orjson.JSONDecodeError as error:
        raise AdminError(400, f"the request's body is no JSON: {error}") from error
    call = AdminCall(principal=principal, peer=peer, limits=limits, values=values, query=dict(request.query), body=body)
    return await handler(call)


async def _respond(exchange: Exchange, status: int, headers: HeaderItems, body: bytes) -> None:
    try:
        async with asyncio.timeout(WHOLE_S):
            await exchange.respond(status, headers, body)
    except TimeoutError:
        raise StreamClosed(f"the client did not take the answer within {spoken_s(WHOLE_S)}") from None


async def _stream(exchange: Exchange, feed: Feed) -> None:
    """Sends what comes, a line each, until the feed ends or its reader is gone."""
    async with contextlib.aclosing(feed):
        async with asyncio.TaskGroup() as both:
            gone = both.create_task(exchange.wait_client_gone())
            sending = both.create_task(_send_all(exchange, feed))
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
            gone.cancel()
            sending.cancel()
    if not sending.cancelled() and (fault := sending.result()) is not None:
        raise fault


async def _send_all(exchange: Exchange, feed: Feed) -> StreamError | None:
    """Sends the whole feed. Returns why it ended early; None when the feed is over."""
    try:
        async with asyncio.timeout(UNREAD_S):
            await exchange.start(200, [_NDJSON])
        turns = Turns()
        async for item in feed:
            async with asyncio.timeout(UNREAD_S):
                await exchange.send(_encoded(item))
            await turns.pause()  # a client that reads fast never makes `send` wait
        await exchange.finish()
    except StreamError as error:
        return error
    except TimeoutError:
        return StreamClosed(f"the client did not read for {spoken_s(UNREAD_S)}")
    return None


async def _body(result: object) -> bytes:
    """Returns an answer's body; empty for one without, and for a stream, whose lines are encoded as they come."""
    if result is None or isinstance(result, AsyncGenerator):
        return b""
    if not isinstance(result, Listing):
        return _encoded(result)
    turns = Turns()
    body = bytearray(b"{" + orjson.dumps(result.name) + b":[")  # 10,000 pieces to be joined would be a long piece
    between = b""
    async for item in result.items:
        body += between + orjson.dumps(item, option=_AS_JSON)
        between = b","
        await turns.pause()
    body += b"]}\n"
    return bytes(body)


def _encoded(value: object) -> bytes:
    return orjson.dumps(value, option=_AS_JSON | orjson.OPT_APPEND_NEWLINE)


def _error(text: str, code: str = "", remedy: str = "") -> bytes:
    return _encoded({"error": {"code": code or None, "text": text, "remedy": remedy or None}})
