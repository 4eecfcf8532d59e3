"""One HTTP/2 stream as its handler uses it. What it wants sent waits here until the connection finds room."""

from __future__ import annotations

from collections import deque
from typing import Protocol

Headers = list[tuple[bytes, bytes]]
"""In their order, and with those of a name as often as they came."""
_CREDIT_SHARE = 4
"""Window updates smaller than this part of the window wait for more."""


class StreamHandler(Protocol):
    """Takes a stream's events. Called from the event loop; may neither block nor raise."""

    def data_received(self, data: bytes) -> None:
        """Bytes came; they count against the window until `Http2Stream.taken`."""
        ...

    def eof_received(self) -> None:
        """The client has finished its direction."""
        ...

    def sent(self) -> None:
        """All that was queued has gone into the socket."""
        ...

    def lost(self, text: str) -> None:
        """Last call: the client reset the stream, or its connection is gone."""
        ...


class StreamOwner(Protocol):
    """What a stream needs of its connection."""

    def wants_to_send(self, stream: Http2Stream) -> None:
        """Something is there to send."""
        ...


class Http2Stream:
    """A request and its response."""

    def __init__(
        self, owner: StreamOwner, stream_id: int, headers: Headers, head_bytes: int, window_bytes: int
    ) -> None:
        """Take a request.

        Args:
            owner: its connection.
            stream_id: its number there.
            headers: the request's, with `:path` and the like.
            head_bytes: what they count.
            window_bytes: what the client may send ahead of `taken`.
        """
        self.id = stream_id
        self.headers = headers
        self.head_bytes = head_bytes
        self.window_bytes = window_bytes
        self.handler: StreamHandler | None = None
        self.client_finished = False
        self._owner = owner
        self._response: Headers | None = None
        self._queue: deque[bytes] = deque()
        self._offset = 0
        self._trailers: Headers | None = None
        self._reset: int | None = None
        self._taken = 0
        self.ready = False
        """Whether it waits for its turn to send."""

    # Public - for the handler

    @property
    def queued(self) -> int:
        """How many `send`s wait for the client."""
        return len(self._queue)

    @property
    def unsent_bytes(self) -> int:
        """How much they are together."""
        return sum(map(len, self._queue)) - self._offset

    def respond(self, headers: Headers) -> None:
        """Begin the response."""
        self._response = headers
        self._owner.wants_to_send(self)

    def send(self, data: bytes) -> None:
        """Queue bytes behind the headers; `StreamHandler.sent` follows."""
        self._queue.append(data)
        self._owner.wants_to_send(self)

    def finish(self, trailers: Headers) -> None:
        """End the response behind what is queued. No event follows, and what still comes is dropped.

        `trailers`: the whole response, when there was none before; none: the last data is the end.
        """
        self._trailers = trailers
        self.handler = None
        self._owner.wants_to_send(self)

    def reset(self, code: int) -> None:
        """End it at once, without a word."""
        self._reset = code
        self.handler = None
        self._owner.wants_to_send(self)

    def taken(self, count: int) -> None:
        """Bytes are dealt with: the client may send as many more."""
        self._taken += count
        if self._taken >= self.window_bytes // _CREDIT_SHARE:
            self._owner.wants_to_send(self)

    # Internal - for the connection, in the order in which it asks

    def take_reset(self) -> int | None:
        """The code to reset it with."""
        return self._reset

    def take_response(self) -> Headers | None:
        """Headers to send."""
        headers, self._response = self._response, None
        return headers

    def take_credit(self) -> int:
        """By how much to open the window; 0 for nothing yet."""
        if self._taken < self.window_bytes // _CREDIT_SHARE:
            return 0
        credit, self._taken = self._taken, 0
        return credit

    def take_data(self, max_bytes: int) -> bytes:
        """Up to so many queued bytes."""
        first = self._queue[0]
        end = min(self._offset + max_bytes, len(first))
        data = first[self._offset : end]
        self._offset = end
        if end == len(first):
            self._queue.popleft()
            self._offset = 0
        return data

    def take_trailers(self) -> Headers | None:
        """The end of the response, once all data before it is out."""
        return None if self._queue else self._trailers
