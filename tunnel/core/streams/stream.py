"""One stream: its two halves, each with a state of its own, and what is known of it (PROTO 5)."""

from __future__ import annotations

from typing import NamedTuple

from tunnel.core.streams.receive_half import ReceiveHalf
from tunnel.core.streams.send_half import SendHalf
from tunnel.core.streams.window import ReceiveWindow
from tunnel.core.wire.frames import TrafficClass
from tunnel.core.wire.principal import NOBODY
from tunnel.core.wire.target import Target


class StreamStatistics(NamedTuple):
    """Figures of one stream."""

    bytes_sent: int
    bytes_received: int
    send_queue_bytes: int
    receive_queue_bytes: int
    window_bytes: int


class CoreStream:
    """One stream. It finishes when both its halves have, or with a reset by either side."""

    __slots__ = (
        "deadline_s",
        "id",
        "local",
        "opened",
        "principal",
        "receive",
        "resolved_address",
        "send",
        "target",
        "trace_id",
    )

    def __init__(
        self,
        stream_id: int,
        target: Target,
        *,
        local: bool,
        hint: TrafficClass,
        window: ReceiveWindow,
        deadline_s: float,
    ) -> None:
        """`local` says that this side opened it; `deadline_s` is when, on the session's clock, opening is given up."""
        self.id = stream_id
        self.target = target
        self.local = local
        self.send = SendHalf(hint)
        self.receive = ReceiveHalf(window)
        self.deadline_s = deadline_s
        self.opened = False
        self.principal = NOBODY
        self.trace_id = ""
        self.resolved_address = ""

    def open_up(self) -> None:
        """Opens both halves, which may carry bytes from now on: ACCEPT was sent or received.

        Raises:
            LocalProtocolError: they are open already.
        """
        self.send.open_up()
        self.receive.open_up()
        self.opened = True

    @property
    def finished(self) -> bool:
        """Returns whether both directions ended cleanly, the peer has our FIN and the local reader has everything."""
        return self.send.done and self.receive.done

    def statistics(self) -> StreamStatistics:
        """Returns the figures of the stream as they stand."""
        window = self.receive.window
        return StreamStatistics(
            self.send.offset, window.received, self.send.queued, self.receive.queued, window.size_bytes
        )
