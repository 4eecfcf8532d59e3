"""Passes a request on to the API server as it is, and its answer back: bodies of any length both ways, watches, and
upgrades such as those of exec.

Nothing is read further than the other side takes it. An answer that breaks off is cut off here too, so that nobody
takes a part for the whole. A client that leaves ends its request at the API server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from edge_agent.autonomy.upward.lines import Line, Lines
from tunnel.aio.http.exchange import Exchange
from tunnel.aio.http.gone import unless_gone
from tunnel.aio.http.http1 import HeaderItems, Headers, HttpError, Request, Response
from tunnel.aio.sockets.joined import join
from tunnel.core.wire.errors import Code, StreamError

WHOLE_BYTES = 256 * 1024
"""A body up to here is read before the request goes on; a longer one goes on as it comes. The API server refuses
objects above 3 MiB, and next to none has a tenth of that.
"""
ANSWER_S = 10.0
"""Seconds that an answer to a request of the proxy's own may take."""
MAX_ANSWER_BYTES = 4 * 1024 * 1024
_HOP_BY_HOP = frozenset(
    ("connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
     "transfer-encoding", "upgrade")
)  # fmt: skip
"""The header fields that are about one connection (RFC 9110 7.6.1, and those of older clients)."""
_OURS = frozenset(("content-length", "date", "expect", "host"))
"""Those that each side writes itself."""
_IDEMPOTENT = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE")
"""The methods of which a request may be sent twice (RFC 9110 9.2.2)."""


class Unreached(StreamError):
    """There is no answer: the API server cannot be reached, or went away before it began one."""

    default_code = Code.UNREACHABLE


class Late(Unreached):
    """There is another answer, for which the API server's is given up: it takes too long, or is none."""


@dataclass(frozen=True, slots=True)
class Otherwise:
    """When a request has another answer than the API server's: it is then not waited for."""

    head_timeout_s: float
    """Seconds that the head of the answer may take."""
    fits: Callable[[Response], bool]
    """Whether the answer with this head is passed back."""


async def ask_whole(
    exchange: Exchange, request: Request, lines: Lines, authority: str, body: bytes, max_bytes: int
) -> tuple[Response, bytes]:
    """Passes one request on, and returns its whole answer for `give_whole`.

    Args:
        exchange: the client's.
        request: its head.
        lines: the connections to the API server, with the identity that the request goes up with.
        authority: the API server's `HOST:PORT`.
        body: the request's.
        max_bytes: how long the answer may be.

    Raises:
        Unreached: there is no answer, or it broke off.
        StreamError: the client is gone.
    """
    headers = [("host", authority), *_request_headers(request)]
    if body or request.method in ("POST", "PUT", "PATCH"):
        headers.append(("content-length", str(len(body))))
    may_repeat = request.method in _IDEMPOTENT
    asked = _whole(lines, request.method, request.target, headers, body, max_bytes, may_repeat=may_repeat)
    return await unless_gone(exchange, asked)


async def give_whole(exchange: Exchange, head: Response, body: bytes) -> None:
    """Answers with what the API server has answered.

    Raises:
        StreamError: the client is gone.
    """
    left_out = ("date", "content-length")
    await exchange.respond(head.status, [item for item in _end_to_end(head.headers) if item[0] not in left_out], body)


async def pass_on(
    exchange: Exchange,
    request: Request,
    lines: Lines,
    authority: str,
    otherwise: Otherwise | None = None,
) -> None:
    """Passes one request on, and its answer back.

    Args:
        exchange: the client's.
        request: its head.
        lines: the connections to the API server, with the identity that the request goes up with.
        authority: the API server's `HOST:PORT`.
        otherwise: when the answer is given up, since there is another; None waits for whatever comes. It is for
            requests without a body.

    Raises:
        Unreached: nothing was answered yet, and there is no answer, or none that fits.
        HttpError: nothing was answered yet, and the request's body is broken, or it wants what HTTP/2 cannot do.
        StreamError: the client is gone, or its answer was cut off.
    """
    body, is_whole = (b"", True) if request.upgrade else await _read(exchange)
    headers = [("host", authority), *_request_headers(request)]
    if is_whole:
        if body or request.method in ("POST", "PUT", "PATCH"):
            headers.append(("content-length", str(len(body))))
        await _pass_whole(exchange, request, lines, headers, body, otherwise)
    else:
        length = request.headers.get("content-length")
        headers.append(("content-length", length) if length is not None else ("transfer-encoding", "chunked"))
        line = await _taken(lines, fresh=True)
        try:
            await _answer_while_sending(exchange, request, line, headers, body)
        finally:
            lines.give_back(line)


async def ask(
    lines: Lines, method: str, path: str, headers: HeaderItems, body: bytes, timeout_s: float = ANSWER_S
) -> tuple[int, bytes]:
    """Sends a request of the proxy's own, which may be sent twice, and returns the status and the body of its answer.

    Raises:
        Unreached: there is none.
    """
    try:
        async with asyncio.timeout(timeout_s):
            head, said = await _whole(lines, method, path, headers, body, MAX_ANSWER_BYTES, may_repeat=True)
            return head.status, said
    except TimeoutError:
        raise Unreached("it does not answer in time") from None


# Internal


async def _read(exchange: Exchange) -> tuple[bytes, bool]:
    """Returns the beginning of a request's body, and whether that is all of it."""
    body = bytearray()
    while len(body) <= WHOLE_BYTES:
        chunk = await exchange.read_chunk()
        if not chunk:
            return bytes(body), True
        body += chunk
    return bytes(body), False


def _request_headers(request: Request) -> list[tuple[str, str]]:
    headers = [item for item in _end_to_end(request.headers) if item[0] not in _OURS]
    if request.upgrade:
        headers += [("connection", "Upgrade"), ("upgrade", request.upgrade)]
    return headers


def _end_to_end(headers: Headers) -> list[tuple[str, str]]:
    named = {name.lower() for name in headers.tokens("connection")}
    return [item for item in headers if item[0] not in _HOP_BY_HOP and item[0] not in named]


async def _pass_whole(
    exchange: Exchange,
    request: Request,
    lines: Lines,
    headers: HeaderItems,
    body: bytes,
    otherwise: Otherwise | None,
) -> None:
    """Sends a request with its body. A connection that others used before may have been closed just now, which is
    noticed too late: then what may be sent twice goes out by a new one.
    """
    fresh = False
    while True:
        try:
            async with asyncio.timeout(otherwise.head_timeout_s if otherwise is not None else None):
                line = await _taken(lines, fresh=fresh)
        except TimeoutError:
            raise Late("no connection to it comes about in time") from None
        try:
            try:
                head = await unless_gone(exchange, _asked(line, request, headers, body, otherwise))
            except Late:
                raise
            except Unreached:
                if line.is_fresh or line.is_cut or request.method not in _IDEMPOTENT:
                    raise
                fresh = True
                continue
            if otherwise is not None and not otherwise.fits(head):
                raise Late(f"it answers {head.status}")
            await _answer(exchange, line, head)
            return
        finally:
            lines.give_back(line)


async def _whole(
    lines: Lines,
    method: str,
    target: str,
    headers: HeaderItems,
    body: bytes,
    max_bytes: int,
    *,
    may_repeat: bool,
) -> tuple[Response, bytes]:
    """Sends a request and returns its whole answer. A connection that was used before may have been closed just now:
    then what may be repeated goes out by a new one.
    """
    fresh = False
    while True:
        line = await _taken(lines, fresh=fresh)
        try:
            await line.http.start(method, target, headers, body)
            await line.http.finish()
            head = await line.response()
            fresh = True  # what breaks off now was an answer
            return head, await line.http.read_body(max_bytes)
        except StreamError as error:
            if fresh or line.is_fresh or line.is_cut or not may_repeat:
                raise Unreached(str(error)) from error
            fresh = True
        finally:
            lines.give_back(line)


async def _taken(lines: Lines, *, fresh: bool) -> Line:
    try:
        return await lines.take(fresh=fresh)
    except OSError as error:
        raise Unreached(str(error) or type(error).__name__) from error


async def _asked(
    line: Line, request: Request, headers: HeaderItems, body: bytes, otherwise: Otherwise | None
) -> Response:
    try:
        async with asyncio.timeout(otherwise.head_timeout_s if otherwise is not None else None):
            await line.http.start(request.method, request.target, headers, body)
            await line.http.finish()
            return await line.response()
    except StreamError as error:
        raise Unreached(str(error)) from error
    except TimeoutError:
        raise Late("it does not answer in time") from None


async def _answer(exchange: Exchange, line: Line, head: Response) -> None:
    headers = [item for item in _end_to_end(head.headers) if item[0] != "date"]
    if head.status == 101:
        await _switch(exchange, line, head, headers)
        return
    await exchange.start(head.status, headers)
    try:
        await unless_gone(exchange, _copy(exchange, line))
    except BaseException:
        exchange.abort()  # an end would promise that this is all there is
        raise


async def _copy(exchange: Exchange, line: Line) -> None:
    while chunk := await line.http.read_chunk():
        await exchange.send(chunk)
    await exchange.finish()


async def _switch(exchange: Exchange, line: Line, head: Response, headers: HeaderItems) -> None:
    switched = [("connection", "Upgrade"), ("upgrade", head.headers.get("upgrade") or "")]
    conn = await exchange.take_over([*switched, *headers], head.reason)
    line.is_switched = True
    if first := line.http.trailing_data():
        await conn.write(first)
    await join(conn, line.conn)


async def _answer_while_sending(
    exchange: Exchange, request: Request, line: Line, headers: HeaderItems, first: bytes
) -> None:
    """Sends the rest of a long body, and passes the answer on, which may come before all was sent: then the rest is of
    no use any more.
    """
    failures: list[StreamError] = []
    begun = asyncio.Event()

    async def send() -> None:
        await begun.wait()
        try:
            while chunk := await exchange.read_chunk():
                await line.http.send(chunk)
            await line.http.finish()
        except HttpError as error:
            failures.append(error)
            answering.cancel()
        except StreamError as error:
            if line.conn.closed.done():
                return  # the answer tells why
            failures.append(error)
            answering.cancel()

    async def answer() -> None:
        try:
            try:
                await line.http.start(request.method, request.target, headers, first)
                begun.set()
                head = await line.response()
            except StreamError as error:
                raise Unreached(str(error)) from error
            await exchange.start(head.status, [item for item in _end_to_end(head.headers) if item[0] != "date"])
            await _copy(exchange, line)
        except StreamError as error:
            failures.append(error)

    async with asyncio.TaskGroup() as tasks:
        answering = tasks.create_task(answer(), name="answer")
        sending = tasks.create_task(send(), name="body")
        await asyncio.wait({answering})
        sending.cancel()
    if failures:
        if exchange.answered:
            exchange.abort()
        raise failures[0]
