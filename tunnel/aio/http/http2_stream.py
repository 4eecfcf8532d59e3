"""Holds one HTTP/2 stream as its handler uses it. What it wants sent waits here until the connection finds room."""

from __future__ import annotations

from collections import deque
from typing import Protocol

Headers = list[tuple[bytes, bytes]]
"""Header fields in their order, with those of one name as often as they came."""
_CREDIT_SHARE = 4
"""The window divided by this is the smallest window update; smaller ones wait for more."""


class StreamHandler(Protocol):
    """The handler of a stream's events. It is called from the event loop, and may neither block nor raise."""

    def data_received(self, data: bytes) -> None:
        """Takes bytes that came; they count against the window until `Http2Stream.taken`."""
        ...

    def eof_received(self) -> None:
        """Learns that the client has finished its direction."""
        ...

    def sent(self) -> None:
        """Learns that all that was queued has gone into the socket."""
        ...

    def lost(self, text: str) -> None:
        """Learns that the client reset the stream, or that its connection is gone. It is the last call."""
        ...


class StreamOwner(Protocol):
    """The connection of a stream, as the stream needs it."""

    def wants_to_send(self, stream: Http2Stream) -> None:
        """Gives the stream its turn, since it has something to send."""
        ...


class Http2Stream:
    """A request and its response, as one stream."""

    def __init__(
        self, owner: StreamOwner, stream_id: int, headers: Headers, head_bytes: int, window_bytes: int
    ) -> None:
        """Takes a request, without answering it yet.

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
        """Whether the stream waits for its turn to send."""

    # Public - for the handler

    @property
    def queued(self) -> int:
        """Returns how many chunks that were given to `send` wait for the client."""
        return len(self._queue)

    @property
    def unsent_bytes(self) -> int:
        """Returns how many bytes wait for the client."""
        return sum(map(len, self._queue)) - self._offset

    def respond(self, headers: Headers) -> None:
        """Begins the response with these headers."""
        self._response = headers
        self._owner.wants_to_send(self)

    def send(self, data: bytes) -> None:
        """Queues bytes behind the headers. `StreamHandler.sent` is called when they have gone into the socket."""
        self._queue.append(data)
        self._owner.wants_to_send(self)

    def finish(self, trailers: Headers) -> None:
        """Ends the response behind what is queued. No event follows, and what still comes is dropped.

        `trailers` are the whole response, when there was none before; when they are empty, the last data is the end.
        """
        self._trailers = trailers
        self.handler = None
        self._owner.wants_to_send(self)

    def reset(self, code: int) -> None:
        """Ends the stream at once with a reset of this code. No event follows."""
        self._reset = code
        self.handler = None
        self._owner.wants_to_send(self)

    def taken(self, count: int) -> None:
        """Notes that `count` bytes are dealt with, so that the client may send as many more."""
        self._taken += count
        if self._taken >= self.window_bytes // _CREDIT_SHARE:
            self._owner.wants_to_send(self)

    # Internal - for the connection, in the order in which it asks

    def take_reset(self) -> int | None:
        """Returns the code to reset the stream with; None when it is not to be reset."""
        return self._reset

    def take_response(self) -> Headers | None:
        """Returns the headers to send, once; None when there are none."""
        headers, self._response = self._response, None
        return headers

    def take_credit(self) -> int:
        """Returns by how many bytes to open the window; 0 for nothing yet."""
        if self._taken < self.window_bytes // _CREDIT_SHARE:
            return 0
        credit, self._taken = self._taken, 0
        return credit

    def take_data(self, max_bytes: int) -> bytes:
        """Returns up to `max_bytes` of the queued bytes, which must not be empty."""
        first = self._queue[0]
        end = min(self._offset + max_bytes, len(first))
        data = first[self._offset : end]
        self._offset = end
        if end == len(first):
            self._queue.popleft()
            self._offset = 0
        return data

    def take_trailers(self) -> Headers | None:
        """Returns the trailers that end the response, once all data before them is out; None until then."""
        return None if self._queue else self._trailers
