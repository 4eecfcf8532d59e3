"""HTTP/1.1 over any Duplex, both sides: heads, bodies, keep-alive, 100-continue, upgrades that lose no early byte.

The grammar is h11's, which refuses what request smuggling needs (doubled lengths, bad chunk sizes, bare line feeds in
names). Listening, TLS, timeouts and routing belong to the callers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote

import h11

from tunnel.aio.http.request_target import check_host, check_target
from tunnel.aio.sockets.duplex import Duplex
from tunnel.core.streams.budget import Budget
from tunnel.core.wire.errors import Code, StreamError
from tunnel.core.wire.faults import REQUEST_INVALID, coded
from tunnel.core.wire.spoken import printable

MAX_HEAD_BYTES = 64 * 1024
"""The longest head: the request or status line with all headers."""
MAX_LONG_HEAD_BYTES = 1024 * 1024
"""The longest head where an exec's command rides in the request line, as Kubernetes' servers take it (Go's
DefaultMaxHeaderBytes).
"""
MAX_DRAIN_BYTES = 64 * 1024
"""How much of an unread request body is worth reading to keep a connection alive."""
READ_BYTES = 64 * 1024
MAX_FAULT_CHARS = 200
"""The longest text of what is wrong with a request or an answer: the parser may repeat some of it."""
MAX_REASON_CHARS = 256
"""The longest text behind the status of an answer; longer ones are cut."""


class HttpError(StreamError):
    """The other side broke HTTP or a limit of ours.

    Attributes:
        status: what a server answers.
    """

    default_code = Code.PROTOCOL_ERROR

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


class Headers:
    """Header fields in their order; names are lower case and match without regard to case."""

    __slots__ = ("_items",)

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self._items = [(name.lower(), value) for name, value in items]

    def get(self, name: str) -> str | None:
        """Returns the first value of a field; None when it is absent."""
        wanted = name.lower()
        return next((value for key, value in self._items if key == wanted), None)

    def getlist(self, name: str) -> list[str]:
        """Returns every value of a field that may come on several lines."""
        wanted = name.lower()
        return [value for key, value in self._items if key == wanted]

    def tokens(self, name: str) -> list[str]:
        """Returns the members of a comma-separated field in lower case: of `Connection: keep-alive, Upgrade`, two."""
        return [token for value in self.getlist(name) for part in value.split(",") if (token := part.strip().lower())]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"Headers({[name for name, _ in self._items]})"  # values may be credentials


@dataclass(frozen=True, slots=True)
class Request:
    """The head of a request."""

    method: str
    target: str
    """The target as it came: still percent-encoded, with the query."""
    headers: Headers

    @property
    def path(self) -> str:
        """Returns the target without its query, decoded."""
        return unquote(self.raw_path)

    @property
    def raw_path(self) -> str:
        """Returns the target without its query, as it came, and without a host (RFC 9112 3.2.2)."""
        scheme, has_host, rest = self.target.partition("?")[0].partition("://")
        return f"/{rest.partition('/')[2]}" if has_host and scheme.isalpha() else self.target.partition("?")[0]

    @property
    def raw_query(self) -> str:
        """Returns the query as it came, without the question mark."""
        return self.target.partition("?")[2]

    @property
    def query(self) -> list[tuple[str, str]]:
        """Returns the decoded query in its order; names may repeat."""
        return parse_qsl(self.raw_query, keep_blank_values=True)

    @property
    def upgrade(self) -> str | None:
        """Returns the protocol that the client wants to switch to, as it wrote it; None when it wants none."""
        return self.headers.get("upgrade") if "upgrade" in self.headers.tokens("connection") else None


@dataclass(frozen=True, slots=True)
class Response:
    """The head of a response."""

    status: int
    reason: str
    headers: Headers


HeaderItems = Iterable[tuple[str, str]]


class Refusal(NamedTuple):
    """The answer to a request that cannot be read, beside its status."""

    content_type: str
    body: bytes
    reason: str = ""
    """The text behind the status; empty for the usual one of that status."""


def plain_refusal(error: HttpError) -> Refusal:
    """Returns an answer in plain text, with the code of the fault."""
    return Refusal("text/plain; charset=utf-8", f"{coded(error.text, REQUEST_INVALID)}\n".encode())


async def whole_body(
    read_chunk: Callable[[], Awaitable[bytes]], max_bytes: int, what: str = "the request's body", status: int = 413
) -> bytes:
    """Returns a whole body.

    Args:
        read_chunk: waits for a part of it and returns that; `b""` is its end.
        max_bytes: how long it may be.
        what: names it in an error.
        status: that of the error.

    Raises:
        HttpError: it is longer than `max_bytes`.
    """
    body = bytearray()
    while chunk := await read_chunk():
        body += chunk
        if len(body) > max_bytes:
            raise HttpError(f"{what} is longer than {max_bytes} bytes", status)
    return bytes(body)


def check_request(request: Request, authority: str | None = None) -> Request:
    """Returns a request whose target and Host can be read; all servers have theirs from here.

    Args:
        request: the request.
        authority: what HTTP/2 has in the place of Host; None for none.

    Raises:
        HttpError: they cannot.
    """
    try:
        check_target(request.method, request.target)
        if request.method != "CONNECT":
            for host in (authority, *request.headers.getlist("host")):
                check_host(host or "")
    except ValueError as error:
        raise HttpError(str(error)) from error
    return request


class ServerConnection:
    """The server's side of one connection: a loop of `next_request`, then one answer.

    An answer is `respond` (whole), `start`, `send`..., `finish` (streamed), or `upgrade`.
    """

    def __init__(
        self,
        duplex: Duplex,
        max_head_bytes: int = MAX_HEAD_BYTES,
        long_heads: Budget | None = None,
        refusal: Callable[[HttpError], Refusal] = plain_refusal,
    ) -> None:
        """Takes a connection over.

        Args:
            duplex: the connection.
            max_head_bytes: the longest head of a request; a longer one is answered with 431.
            long_heads: what heads take that are longer than MAX_HEAD_BYTES, while they come and as long as their
                requests are served; those of all connections together. The caller must `release` at the end. None
                sets no such bound.
            refusal: makes the answer to a request that cannot be read.
        """
        self._duplex = duplex
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=max_head_bytes + READ_BYTES)
        self._max_head_bytes = max_head_bytes
        self._long_heads = long_heads
        self._refusal = refusal
        self._taken: tuple[Budget, int] | None = None
        self._head_only = False

    async def next_request(self) -> Request | None:
        """Waits for a request; None when the connection ends here.

        A malformed request has been answered with its error.

        Raises:
            StreamError: the connection was reset.
        """
        self.release()
        if not await self._start_next_cycle():
            return None
        try:
            event = await _next_event(self._h11, self._duplex, self._check_head)
            if not isinstance(event, h11.Request):
                return None
            self._head_only = event.method == b"HEAD"
            method, target = event.method.decode("ascii"), event.target.decode("ascii", "replace")
            return check_request(Request(method, target, _headers(event)))
        except HttpError as error:
            await self._refuse(error)
            return None

    async def read_body(self, max_bytes: int) -> bytes:
        """Reads the whole body of the request and returns it.

        Raises:
            HttpError: it is longer than `max_bytes` (status 413), broken, or ends early.
            StreamError: the connection was reset.
        """
        return await whole_body(self.read_chunk, max_bytes)

    async def read_chunk(self) -> bytes:
        """Waits for a part of the request's body and returns it; `b""` is its proper end.

        Raises:
            HttpError: it is broken, or ends early.
            StreamError: the connection was reset.
        """
        if self._h11.they_are_waiting_for_100_continue:
            await self._send(h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue"))
        while self._h11.their_state is h11.SEND_BODY:
            event = await self._next_event()
            if isinstance(event, h11.Data) and event.data:
                return bytes(event.data)
        return b""

    async def respond(self, status: int, headers: HeaderItems = (), body: bytes = b"", reason: str = "") -> None:
        """Answers with a whole body; to a HEAD request only its length is sent.

        Raises:
            StreamError: the client is gone.
        """
        bodiless = status == 204 or status == 304
        lengths = [] if bodiless else [("content-length", str(len(body)))]
        await self.start(status, [*headers, *lengths], reason)
        if body and not self._head_only and not bodiless:
            await self._send(h11.Data(data=body))
        await self.finish()

    async def start(self, status: int, headers: HeaderItems = (), reason: str = "") -> None:
        """Begins a streamed answer; without a Content-Length it is chunked.

        Raises:
            StreamError: the client is gone.
        """
        items = [*headers, ("date", formatdate(usegmt=True))]
        await self._send(h11.Response(status_code=status, headers=_raw(items), reason=_reason(status, reason)))

    async def send(self, chunk: bytes) -> None:
        """Sends a part of the body.

        Raises:
            StreamError: the client is gone.
        """
        if chunk and not self._head_only:
            await self._send(h11.Data(data=chunk))

    async def finish(self) -> None:
        """Ends a streamed answer.

        Raises:
            StreamError: the client is gone.
        """
        await self._send(h11.EndOfMessage())

    async def upgrade(self, headers: HeaderItems, reason: str = "") -> bytes:
        """Switches protocols; from here on the duplex belongs to the caller.

        Returns:
            What the client sent behind its request, to be read before the duplex.

        Raises:
            HttpError: the request has a body that is broken or longer than 64 KiB.
            StreamError: the client is gone.
        """
        await self.read_body(MAX_DRAIN_BYTES)
        await self._send(
            h11.InformationalResponse(status_code=101, headers=_raw(headers), reason=_reason(101, reason)),
        )
        return self._h11.trailing_data[0]

    async def accept_connect(self) -> bytes:
        """Answers a CONNECT request with 200 and no header; from here on the duplex belongs to the caller.

        Returns:
            What the client sent behind its request, to be read before the duplex.

        Raises:
            StreamError: the client is gone.
        """
        await self._send(h11.Response(status_code=200, headers=[], reason=b"Connection Established"))
        return self._h11.trailing_data[0]

    async def wait_client_gone(self) -> None:
        """Returns when the client ends or resets the connection; for use beside a long answer.

        Bytes of a further request are kept for `next_request`; once these are many, this only waits.
        """
        kept = 0
        while kept <= MAX_DRAIN_BYTES:
            try:
                data = await self._duplex.read(READ_BYTES)
            except StreamError:
                return
            self._h11.receive_data(data)
            if not data:
                return
            kept += len(data)
        await asyncio.get_running_loop().create_future()

    def release(self) -> None:
        """Gives back what the head of the last request took of `long_heads`."""
        if self._taken is not None:
            budget, count = self._taken
            budget.release(count)
            self._taken = None

    @property
    def answered(self) -> bool:
        """Returns whether the answer to the current request has begun, so that no other can be given."""
        return self._h11.our_state not in (h11.IDLE, h11.SEND_RESPONSE)

    # Internal

    async def _start_next_cycle(self) -> bool:
        if self._h11.our_state is h11.IDLE:
            return True
        if self._h11.our_state is not h11.DONE or self._h11.they_are_waiting_for_100_continue:
            return False
        try:
            await self.read_body(MAX_DRAIN_BYTES)
        except HttpError:
            return False
        if self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        self._head_only = False
        return True

    async def _next_event(self) -> h11.Event:
        return await _next_event(self._h11, self._duplex)

    async def _send(self, event: h11.Event) -> None:
        await _send(self._h11, self._duplex, event)

    def _check_head(self, head_bytes: int) -> None:
        """Checks a head that is `head_bytes` long so far, and not complete.

        Raises:
            HttpError: it is too long, or no memory is left for long heads.
        """
        if head_bytes > self._max_head_bytes:
            raise HttpError(f"the request's head is longer than {self._max_head_bytes} bytes", 431)
        if self._long_heads is None or head_bytes <= MAX_HEAD_BYTES:
            return
        budget, taken = self._taken or (self._long_heads, 0)
        more = head_bytes - taken
        if more > budget.available_bytes:
            raise HttpError("too many requests with long heads are being served: try again", 503)
        budget.reserve(more)
        self._taken = budget, head_bytes

    async def _refuse(self, error: HttpError) -> None:
        if self.answered:
            return
        said = self._refusal(error)
        headers = [("content-type", said.content_type), ("connection", "close")]
        await self.respond(error.status, headers, said.body, said.reason)


class ClientConnection:
    """The client's side of a connection, for one request after the other."""

    def __init__(self, duplex: Duplex, max_head_bytes: int = MAX_HEAD_BYTES) -> None:
        self._duplex = duplex
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=max_head_bytes)

    async def request(self, method: str, target: str, headers: HeaderItems = (), body: bytes = b"") -> Response:
        """Sends a request and returns the head of its answer; 101 means that the duplex is the caller's.

        Raises:
            HttpError: the answer is not HTTP, or the server ended before it.
            StreamError: the connection was reset.
        """
        await self._start_next_cycle()
        items = list(headers)
        if body or method in ("POST", "PUT", "PATCH"):
            items.append(("content-length", str(len(body))))
        # One write for head and body: over a tunnel each write may become a packet of its own.
        parts = [self._head(method, target, items)]
        parts += [self._h11.send(h11.Data(data=body)), self._h11.send(h11.EndOfMessage())]
        await self._duplex.write(b"".join(part for part in parts if part))
        return await self.response()

    async def start(self, method: str, target: str, headers: HeaderItems, first: bytes = b"") -> None:
        """Sends the head of a request whose body is streamed, and the first part of it.

        The headers must say how long the body is, or that it is chunked; with neither there is none. The caller goes on
        with `send`, `finish` and `response`.

        Raises:
            HttpError: the server keeps the connection no longer than its last answer.
            StreamError: the connection was reset.
        """
        await self._start_next_cycle()
        parts = [self._head(method, target, headers)]
        if first:
            parts.append(self._h11.send(h11.Data(data=first)))
        await self._duplex.write(b"".join(part for part in parts if part))

    async def send(self, chunk: bytes) -> None:
        """Sends a part of the body.

        Raises:
            HttpError: it is longer than the headers said.
            StreamError: the connection was reset.
        """
        try:
            await _send(self._h11, self._duplex, h11.Data(data=chunk))
        except h11.LocalProtocolError as error:
            raise HttpError(f"the request's body is not as its head says: {error}") from error

    async def finish(self) -> None:
        """Ends the body.

        Raises:
            HttpError: it is shorter than the headers said.
            StreamError: the connection was reset.
        """
        try:
            await _send(self._h11, self._duplex, h11.EndOfMessage())
        except h11.LocalProtocolError as error:
            raise HttpError(f"the request's body is not as its head says: {error}") from error

    async def response(self) -> Response:
        """Waits for the head of the answer and returns it; 101 means that the duplex is the caller's.

        Raises:
            HttpError: the answer is not HTTP, or the server ended before it.
            StreamError: the connection was reset.
        """
        while True:
            event = await _next_event(self._h11, self._duplex)
            if isinstance(event, h11.ConnectionClosed):
                raise HttpError("the server ended the connection before its answer", 502)
            if isinstance(event, h11.Response) or (
                isinstance(event, h11.InformationalResponse) and event.status_code == 101
            ):
                reason = printable(event.reason.decode("latin-1"), MAX_REASON_CHARS)
                return Response(event.status_code, reason, _headers(event))

    @property
    def reusable(self) -> bool:
        """Returns whether the connection can carry another request: all of this one was sent, and of its answer
        read.
        """
        return self._h11.our_state is self._h11.their_state is h11.DONE

    async def read_chunk(self) -> bytes:
        """Waits for a part of the answer's body and returns it; `b""` is its proper end.

        Raises:
            HttpError: the body is broken, or the server ended in the middle of it.
            StreamError: the connection was reset.
        """
        while self._h11.their_state is h11.SEND_BODY:
            event = await _next_event(self._h11, self._duplex)
            if isinstance(event, h11.Data) and event.data:
                return bytes(event.data)
        return b""

    @property
    def has_more(self) -> bool:
        """Returns whether more of the body has come than was read. The end of the chunk that was read may wait as well,
        with two bytes.
        """
        return len(self._h11.trailing_data[0]) > 2

    async def read_body(self, max_bytes: int) -> bytes:
        """Reads the whole body of the answer and returns it.

        Raises:
            HttpError: it is longer than `max_bytes`, or broken.
            StreamError: the connection was reset.
        """
        return await whole_body(self.read_chunk, max_bytes, "the answer", 502)

    def trailing_data(self) -> bytes:
        """Returns what the server sent behind the head of a 101, to be read before the duplex."""
        return self._h11.trailing_data[0]

    # Internal

    def _head(self, method: str, target: str, headers: HeaderItems) -> bytes | None:
        """Returns the head of a request.

        Raises:
            HttpError: HTTP/1.1 has no way to say that, though whoever wants it said may have heard it by HTTP/2.
        """
        try:
            return self._h11.send(h11.Request(method=method, target=target, headers=_raw(headers)))
        except (h11.LocalProtocolError, UnicodeEncodeError) as error:
            raise HttpError(f"the request cannot be passed on: {error}") from error

    async def _start_next_cycle(self) -> None:
        if self._h11.our_state is h11.DONE:
            await self.read_body(MAX_DRAIN_BYTES)
            if self._h11.their_state is h11.DONE:
                self._h11.start_next_cycle()
        if self._h11.our_state is not h11.IDLE:
            raise HttpError("the server keeps the connection no longer than its last answer", 502)


def _headers(event: h11.Request | h11.Response | h11.InformationalResponse) -> Headers:
    return Headers((name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers)


def _raw(items: HeaderItems) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in items]


def _reason(status: int, reason: str) -> bytes:
    if not reason and status in HTTPStatus._value2member_map_:
        reason = HTTPStatus(status).phrase
    return reason.encode("latin-1", "replace")


async def _next_event(
    connection: h11.Connection, duplex: Duplex, check_head: Callable[[int], None] | None = None
) -> h11.Event:
    """Waits for the next event. `check_head` is told how long it is so far, each time that it is not complete."""
    waiting = len(connection.trailing_data[0])
    while True:
        try:
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            raise HttpError(printable(str(error), MAX_FAULT_CHARS), error.error_status_hint) from error
        if event is h11.PAUSED:
            raise HttpError("more was read than the request has")
        if not isinstance(event, type):
            return event
        if check_head is not None:
            check_head(waiting)
        data = await duplex.read(READ_BYTES)
        waiting += len(data)
        connection.receive_data(data)


async def _send(connection: h11.Connection, duplex: Duplex, event: h11.Event) -> None:
    if data := connection.send(event):
        await duplex.write(data)
