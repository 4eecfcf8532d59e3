"""Frames and packets as the core sees them; how they look on the wire is `codec.py`'s business (PROTO 4 to 8)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from tunnel.core.wire.errors import Code
from tunnel.core.wire.principal import NOBODY, Principal
from tunnel.core.wire.target import Target


class TrafficClass(IntEnum):
    """What the opener says of a stream's traffic; AUTO lets each sender judge by what it sent lately (PROTO 6.3)."""

    AUTO = 0
    INTERACTIVE = 1
    BULK = 2


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a stream, in order. Never empty."""

    stream_id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Credit:
    """The peer may send the bytes [0, limit) of this stream."""

    stream_id: int
    limit: int


@dataclass(frozen=True, slots=True)
class Open:
    """Asks the peer to connect a new stream to a target."""

    stream_id: int
    target: Target
    deadline_ms: int
    """Time left to answer with ACCEPT or RESET; at least 1."""
    credit: int
    """Bytes that the accepting side may send."""
    traffic_class: TrafficClass = TrafficClass.AUTO
    principal: Principal = NOBODY
    """Who asked."""
    trace_id: str = ""
    """What both sides write beside all that concerns this stream; empty: nothing."""
    early_data: bytes = b""
    """The first bytes of the opening side."""
    principal_text: str = ""
    """The principal in words, for a peer without the feature `principal`; empty for one that has it. Never received."""
    agent: str = ""
    """Between servers: whose target it is. Empty: the receiver's own."""
    hop: int = 0
    """How many servers forwarded it; more than MAX_HOP are refused."""


@dataclass(frozen=True, slots=True)
class Accept:
    """The stream is connected."""

    stream_id: int
    resolved_address: str
    """What was dialled, e.g. `10.1.0.9:80`; empty for a service."""
    credit: int
    """Bytes that the opening side may send."""


@dataclass(frozen=True, slots=True)
class Fin:
    """No more DATA follows in this direction."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class Reset:
    """The stream is over in both directions; bytes may be missing. Also the refusal of an OPEN."""

    stream_id: int
    code: Code
    text: str = ""


@dataclass(frozen=True, slots=True)
class StopSending:
    """The receiver wants no more bytes; the sender drops what it holds and answers with FIN."""

    stream_id: int
    code: Code


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a PONG with the same nonce."""

    nonce: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer to a PING."""

    nonce: int
    idle_silence_ms: int = 0
    """The server's: how long the agent may leave an idle link silent from now on (PROTO 7.3); 0 leaves it as it was."""


@dataclass(frozen=True, slots=True)
class GoAway:
    """No new streams, please; those that run go on."""

    code: Code
    text: str = ""
    reconnect_after_ms: int = 0
    """How long to wait before a new session; 0 leaves it to the peer."""


Frame = Data | Credit | Open | Accept | Fin | Reset | StopSending | Ping | Pong | GoAway


@dataclass(frozen=True, slots=True)
class Ack:
    """What every packet says of those that came the other way (PROTO 4.4)."""

    seq: int
    """Every sequenced packet up to this one has been received."""
    delay_us: int
    """How long the newest of them waited for this ack."""
    received_us: int
    """When it arrived, on the receiver's clock, modulo 2^32."""


@dataclass(frozen=True, slots=True)
class Packet:
    """What travels in one message of the carrier."""

    seq: int
    """0: unsequenced, holds PING and PONG only and is never sent again (PROTO 4.2)."""
    ack: Ack
    frames: tuple[Frame, ...]
