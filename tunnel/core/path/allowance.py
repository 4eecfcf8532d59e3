"""What one peer may make us do: streams that it opens, and frames that move no bytes (PROTO 4.7 and 5.7).

It belongs to the peer and not to a session: whoever comes back with a new session finds it as it was left.
"""

from __future__ import annotations

from tunnel.core.path.rate import TokenBucket
from tunnel.core.wire.errors import Code, RemoteProtocolError
from tunnel.core.wire.faults import LINK_FLOODED
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
REFUSED_OPEN_FRAMES = 15
"""What an OPEN beyond what the peer may open counts beside its frame. It and its refusal are some 150 us here, and many
come in one packet, whose turn others wait for: so there are 62 of them a second, and not a thousand.
"""
DATA_EARNS = MESSAGE_FRAMES + 2
"""What a DATA frame from us entitles the peer to: an ack in a message of its own, a CREDIT, and one more."""
EARNED_MOST = 4096
"""How much of what was earned is kept beside the burst, for answers that are still to come."""
LOT_FRAMES = 256
"""How many frames of what the burst still allows are counted together, before they are paid for."""
BYTES_EARN = 1024
"""The number of bytes that we send which entitle the peer to one frame more. With the least window of 4 KiB, there is a
CREDIT for each 2 KiB.
"""


FLOOD_S = 5.0
"""Seconds for which a peer may send more than it pays for without a break. What it sends meanwhile lies unread in
gRPC's window, up to 32 MiB.
"""
BARRED_S = 60.0
"""Seconds after that in which it gets no other session."""


class Allowance:
    """The allowance of one peer."""

    __slots__ = ("_frames", "_lot", "_owes_since_s", "_unpaid", "barred_until_s", "opens", "read_at_s")

    def __init__(self, limits: Limits, now: float) -> None:
        """Begins with a full allowance."""
        self.opens = TokenBucket(limits.opens_per_s, limits.opens_burst, now)
        """The streams that the peer may open. What it asks for beyond that is refused."""
        self.read_at_s = now
        """The moment from which on the next message of the peer may be read: it is read no faster than it pays."""
        self.barred_until_s = now
        """The moment from which on the peer may have another session."""
        self._frames = TokenBucket(FRAMES_PER_S, FRAMES_BURST, now)
        self._unpaid = 0.0
        """What the peer sent and was not paid for yet; below 0 what it earned and did not use yet."""
        self._lot = float(LOT_FRAMES)
        """Up to how much is left unpaid. There are so many tokens at least, so that nothing is read that cannot be
        paid for.
        """
        self._owes_since_s: float | None = None
        """Since when the peer sends more than it can pay for; None while it does not."""

    def received(self, frames: int, data_frames: int, now: float) -> None:
        """Counts a message of the peer: how many frames it had, and how many of them brought bytes.

        Raises:
            RemoteProtocolError: it has sent more than it pays for, for FLOOD_S.
        """
        self._unpaid += frames - data_frames if data_frames else frames + MESSAGE_FRAMES
        if self._unpaid > self._lot:
            self._pay(now)

    def stream_opened(self) -> None:
        """Counts a stream, of either side, which will have to be answered and ended."""
        self._unpaid = max(self._unpaid - OPEN_EARNS, -EARNED_MOST)

    def open_refused(self) -> None:
        """Counts an OPEN beyond what the peer may open."""
        self._unpaid += REFUSED_OPEN_FRAMES

    def sent(self, data_frames: int, message_bytes: int) -> None:
        """Counts a message to the peer with bytes of streams, which it has to acknowledge."""
        self._unpaid = max(self._unpaid - DATA_EARNS * data_frames - message_bytes / BYTES_EARN, -EARNED_MOST)

    def _pay(self, now: float) -> None:
        wait_s = self._frames.spend(self._unpaid, now)
        self._unpaid = 0.0
        self._lot = min(max(self._frames.left, 0.0), LOT_FRAMES)
        self.read_at_s = now + wait_s
        if self._owes_since_s is None:
            if wait_s:
                self._owes_since_s = now
        elif self._frames.left >= FRAMES_PER_S:
            # Not sooner: a busy loop comes late, and the peer would seem to have paused.
            self._owes_since_s = None
        elif wait_s and now - self._owes_since_s >= FLOOD_S:
            self._owes_since_s = None
            self.barred_until_s = now + BARRED_S
            text = "more messages and frames without bytes than may be sent"
            raise RemoteProtocolError(text, Code.LIMIT_EXCEEDED, LINK_FLOODED)
