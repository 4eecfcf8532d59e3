"""What one peer may make us do: streams that it opens, and frames that move no bytes (PROTO 4.7 and 5.7).

It belongs to the peer and not to a session: whoever comes back with a new session finds it as it was left.
"""

from __future__ import annotations

from tunnel.core.path.rate import TokenBucket
from tunnel.core.wire.limits import Limits

FRAMES_PER_S = 1000.0
"""Frames without bytes that a peer may send for long, beside what it earns. Each costs 10 to 40 us here, so that a peer
that sends nothing else takes 4 % of a core at most. A decent one that moves nothing sends a PING in 10 s.
"""
FRAMES_BURST = 4 * 4096
"""How many may come at once: four for each of 4096 streams, which may all end at one moment."""
MESSAGE_FRAMES = 8
"""What a message counts that brings no bytes of a stream. gRPC takes 70 to 140 us for each, whatever is in it."""
OPEN_EARNS = 16
"""What a stream entitles the peer to, whoever opened it: its answer and its end, in messages of their own if need be,
and half as many again.
"""
DATA_EARNS = MESSAGE_FRAMES + 2
"""What a DATA frame from us entitles the peer to: an ack in a message of its own, a CREDIT, and one more."""
BYTES_EARN = 1024
"""The number of bytes that we send which entitle the peer to one frame more. With the least window of 4 KiB, there is a
CREDIT for each 2 KiB.
"""


class Allowance:
    """The allowance of one peer."""

    __slots__ = ("_frames", "opens", "read_at_s")

    def __init__(self, limits: Limits, now: float) -> None:
        """Begins with a full allowance."""
        self.opens = TokenBucket(limits.opens_per_s, limits.opens_burst, now)
        """The streams that the peer may open. What it asks for beyond that is refused."""
        self.read_at_s = now
        """The moment from which on the next message of the peer may be read: it is read no faster than it pays."""
        self._frames = TokenBucket(FRAMES_PER_S, FRAMES_BURST, now)

    def received(self, frames: int, data_frames: int, now: float) -> None:
        """Counts a message of the peer: how many frames it had, and how many of them brought bytes."""
        cost = frames - data_frames if data_frames else frames + MESSAGE_FRAMES
        if cost:
            self.read_at_s = now + self._frames.spend(cost, now)

    def stream_opened(self) -> None:
        """Counts a stream, of either side, which will have to be answered and ended."""
        self._frames.earn(OPEN_EARNS)

    def sent(self, data_frames: int, message_bytes: int) -> None:
        """Counts a message to the peer with bytes of streams, which it has to acknowledge."""
        self._frames.earn(DATA_EARNS * data_frames + message_bytes / BYTES_EARN)
