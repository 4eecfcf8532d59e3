"""The receiving half of a stream: bytes that arrived, in order, until a local reader takes them (PROTO 5, 6).

Every change of its state is made here; who causes one says so by a method:

    open_up         ACCEPT was sent or received
    start           OPEN with early data
    push, finish    the peer's DATA and FIN
    take, stop      the local reader
"""

from __future__ import annotations

from enum import auto, unique

from tunnel.core.machine import Symbol, step_local, step_remote
from tunnel.core.streams.chunks import append_chunk
from tunnel.core.streams.window import ReceiveWindow
from tunnel.core.wire.errors import Code, RemoteProtocolError


@unique
class Receive(Symbol):
    """The states of the receiving half of a stream."""

    OPENING = auto()
    OPEN = auto()
    FIN_RECEIVED = auto()
    """No more bytes come; some may still wait for the reader."""


@unique
class ReceiveInput(Symbol):
    """What changes the state of a receiving half."""

    ACCEPTED = auto()
    DATA = auto()
    FIN = auto()


RECEIVE: dict[tuple[Receive, ReceiveInput], Receive] = {
    (Receive.OPENING, ReceiveInput.ACCEPTED): Receive.OPEN,
    (Receive.OPEN, ReceiveInput.DATA): Receive.OPEN,
    (Receive.OPEN, ReceiveInput.FIN): Receive.FIN_RECEIVED,
}


class ReceiveHalf:
    """The bytes of one stream that arrived.

    It finishes when FIN was received and everything before it was consumed, or dropped since nobody reads any more:
    what a slow socket has yet to take is held, and counted, until then. A reset of the stream, by either side, finishes
    it from any state; then the stream is forgotten, and this with it.
    """

    __slots__ = ("_small_run", "chunks", "queued", "state", "stopped", "window")

    def __init__(self, window: ReceiveWindow) -> None:
        """`window` holds the credit that the peer gets."""
        self.state = Receive.OPENING
        self.window = window
        self.chunks: list[bytes] = []
        self.queued = 0
        """How many bytes wait for the reader."""
        self.stopped = False
        """Whether nobody reads any more; what comes is dropped."""
        self._small_run = 0

    @property
    def more_may_come(self) -> bool:
        """Returns whether the peer may send bytes: the stream is open, and its FIN has not come."""
        return self.state is Receive.OPEN

    @property
    def done(self) -> bool:
        """Returns whether FIN has come and the reader is done with all that came before it."""
        return self.state is Receive.FIN_RECEIVED and (self.stopped or self.waiting_bytes == 0)

    @property
    def waiting_bytes(self) -> int:
        """Returns how many bytes the reader has not consumed, whether it took them or not."""
        return self.window.received - self.window.consumed

    def open_up(self) -> None:
        """Opens this half: ACCEPT was sent or received.

        Raises:
            LocalProtocolError: it is open already.
        """
        self.state = step_local(RECEIVE, self.state, ReceiveInput.ACCEPTED)

    def push(self, data: bytes) -> None:
        """Queues bytes from the peer.

        Raises:
            RemoteProtocolError: they are beyond the credit, before ACCEPT or after FIN.
        """
        self.state = step_remote(RECEIVE, self.state, ReceiveInput.DATA)
        if not self.window.receive(len(data)):
            raise RemoteProtocolError(
                f"DATA up to {self.window.received}, credit is {self.window.granted}", Code.FLOW_CONTROL
            )
        if not self.stopped:
            self._small_run = append_chunk(self.chunks, data, self._small_run)
            self.queued += len(data)

    def start(self, data: bytes) -> None:
        """Queues the early data that came with OPEN.

        It fits in any window, and is read once the stream is connected (PROTO 5.3).
        """
        self.window.receive(len(data))
        self.chunks.append(data)
        self.queued = len(data)

    def finish(self) -> None:
        """Takes the peer's FIN.

        Raises:
            RemoteProtocolError: a second one, or one before ACCEPT.
        """
        self.state = step_remote(RECEIVE, self.state, ReceiveInput.FIN)

    def stop(self) -> bool:
        """Notes that nobody reads any more, and drops what waits.

        Returns whether the peer must be told so: not a second time, and not behind its FIN.
        """
        tell = not self.stopped and self.more_may_come
        self.stopped = True
        self.drop()
        return tell

    def take(self) -> list[bytes]:
        """Returns everything that has arrived, in order. Credit for it is granted only when it is consumed."""
        chunks, self.chunks, self.queued = self.chunks, [], 0
        return chunks

    def drop(self) -> None:
        """Drops the bytes that wait."""
        self.chunks.clear()
        self.queued = 0
