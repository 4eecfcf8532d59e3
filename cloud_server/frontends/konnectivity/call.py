"""Makes a gRPC call of an HTTP/2 stream: messages both ways, back-pressure, and how it ends."""

from __future__ import annotations

from typing import Protocol

from cloud_server.frontends.konnectivity.messages import (
    RESPONSE_HEADERS,
    CallFailed,
    MessageReader,
    Status,
    framed,
    is_grpc,
    trailers,
)
from tunnel.aio.http.http2_stream import Headers, Http2Stream
from tunnel.core.streams.budget import Budget

ASSEMBLY_BYTES = 64 * 1024 * 1024
"""Bytes that the incomplete messages of one connection may take, counting only those that are longer than a window."""
MAX_QUEUED = 64
"""How many messages may wait for the client. We send the next when it took the last; answers to nonsense could be more.
"""


class CallHandler(Protocol):
    """The handler of a call's events. It is called from the event loop, and may neither block nor raise anything but
    CallFailed.
    """

    def received(self, message: bytes) -> None:
        """Takes a message that came.

        Raises:
            CallFailed: it is not one that can be understood.
        """
        ...

    def client_finished(self) -> None:
        """Learns that no more messages follow."""
        ...

    def sent(self) -> None:
        """Learns that all messages have gone to the client."""
        ...

    def lost(self, text: str) -> None:
        """Learns that the client has given the call up, or broken it. It is the last call."""
        ...


class Call:
    """A gRPC call that the client made and nobody has ended yet."""

    def __init__(self, stream: Http2Stream, assembly: Budget) -> None:
        """Takes a stream, without answering it yet. `assembly` is the connection's budget of ASSEMBLY_BYTES for
        incomplete messages.
        """
        self._stream = stream
        self._assembly = assembly
        self._reserved = 0
        self._reader = MessageReader(dict(stream.headers).get(b"grpc-encoding", b""))
        self._handler: CallHandler | None = None
        self._held = False
        self._untaken = 0

    # Public

    def begin(self, handler: CallHandler) -> None:
        """Accepts the call: sends the response's headers, and gives `handler` its events."""
        self._handler = handler
        self._stream.handler = self
        self._stream.respond(RESPONSE_HEADERS)

    def send(self, message: bytes) -> None:
        """Queues a message. `CallHandler.sent` is called when it has gone to the client."""
        self._stream.send(framed(message))

    def finish(self, status: Status = Status.OK, text: str = "") -> None:
        """Ends the call behind what was sent. No event follows."""
        self._handler = None
        self._release()
        self._stream.finish(trailers(status, text))

    def hold(self) -> None:
        """Lets the client send no more than its window until `go_on`."""
        self._held = True

    def go_on(self) -> None:
        """Lets the client send again."""
        self._held = False
        self._take()

    # Internal - called by the stream

    def data_received(self, data: bytes) -> None:
        """Hands on the messages that are complete with the bytes that came."""
        self._untaken += len(data)
        try:
            for message in self._reader.feed(data):
                if self._handler is not None:
                    self._handler.received(message)
                if self._stream.queued > MAX_QUEUED:
                    raise CallFailed(Status.RESOURCE_EXHAUSTED, "answers are not taken")
            if self._handler is not None and not self._held:
                self._reserve()
        except CallFailed as fault:
            self._fail(fault)
            return
        if not self._held:
            self._take()

    def eof_received(self) -> None:
        """Tells the handler that the client has finished; the call fails when it did so within a message."""
        if self._handler is None:
            return
        if self._reader.incomplete:
            self._fail(CallFailed(Status.INTERNAL, "the call ended in the middle of a message"))
        else:
            self._handler.client_finished()

    def sent(self) -> None:
        """Tells the handler that all messages have gone to the client."""
        if self._handler is not None:
            self._handler.sent()

    def lost(self, text: str) -> None:
        """Tells the handler that the client has given up."""
        self._release()
        handler, self._handler = self._handler, None
        if handler is not None:
            handler.lost(text)

    # Internal

    def _reserve(self) -> None:
        """Reserves memory for a message that is longer than the window, so that the client may send more of it as it
        comes, if there is memory for it.
        """
        self._release()
        wanted = self._reader.wanted_bytes
        if wanted <= self._stream.window_bytes:
            return
        if wanted > self._assembly.available_bytes:
            raise CallFailed(Status.RESOURCE_EXHAUSTED, "too many long messages on one connection")
        self._assembly.reserve(wanted)
        self._reserved = wanted

    def _release(self) -> None:
        self._assembly.release(self._reserved)
        self._reserved = 0

    def _take(self) -> None:
        taken, self._untaken = self._untaken, 0
        self._stream.taken(taken)

    def _fail(self, fault: CallFailed) -> None:
        handler = self._handler
        self.finish(fault.status, str(fault))
        if handler is not None:
            handler.lost(str(fault))


def refusal_of(request: Headers, path: bytes) -> Headers | None:
    """Returns the whole answer to a request that is no call of the method at `path`; None when it is one."""
    headers = dict(request)
    if headers.get(b":method") != b"POST":
        return [(b":status", b"405"), (b"allow", b"POST")]
    if not is_grpc(headers.get(b"content-type", b"")):
        return [(b":status", b"415")]
    if headers.get(b":path") != path:
        return [*RESPONSE_HEADERS, *trailers(Status.UNIMPLEMENTED, f"only {path.decode()} is served here")]
    return None
