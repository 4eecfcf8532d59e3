"""Frames and packets as the core sees them (PROTO 4 to 8). `codec.py` knows how they look on the wire."""

from __future__ import annotations

from collections.abc import Sequence
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
    """Milliseconds left to answer with ACCEPT or RESET; at least 1."""
    credit: int
    """Bytes that the accepting side may send."""
    traffic_class: TrafficClass = TrafficClass.AUTO
    principal: Principal = NOBODY
    """The one who asked for the stream."""
    trace_id: str = ""
    """The id that both sides log beside everything that concerns this stream; empty when there is none."""
    early_data: bytes = b""
    """The first bytes that the opening side sends; may be empty."""
    principal_text: str = ""
    """The principal in words, for a peer without the feature `principal`; empty for one that has it. Never received."""
    agent: str = ""
    """The agent whose target it is, when one server asks another; empty when it is a target of the receiver itself."""
    hop: int = 0
    """How many servers have forwarded the stream; an OPEN with more than MAX_HOP is refused."""


@dataclass(frozen=True, slots=True)
class Accept:
    """Answers an OPEN: the stream is connected."""

    stream_id: int
    resolved_address: str
    """The address that was dialled, such as `10.1.0.9:80`; empty for a service."""
    credit: int
    """Bytes that the opening side may send."""


@dataclass(frozen=True, slots=True)
class Fin:
    """Says that no more DATA follows in this direction."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class Reset:
    """Ends a stream in both directions; bytes may be missing. It is also the refusal of an OPEN."""

    stream_id: int
    code: Code
    text: str = ""


@dataclass(frozen=True, slots=True)
class StopSending:
    """Says that the receiver wants no more bytes; the sender drops what it holds and answers with FIN."""

    stream_id: int
    code: Code


@dataclass(frozen=True, slots=True)
class Ping:
    """Asks for a PONG with the same nonce."""

    nonce: int


@dataclass(frozen=True, slots=True)
class Pong:
    """Answers a PING."""

    nonce: int
    idle_silence_ms: int = 0
    """Milliseconds that the server lets the agent leave an idle link silent from now on (PROTO 7.3); 0
    changes nothing.
    """


@dataclass(frozen=True, slots=True)
class GoAway:
    """Asks the peer to open no new streams; those that run go on."""

    code: Code
    text: str = ""
    reconnect_after_ms: int = 0
    """Milliseconds to wait before a new session; 0 leaves it to the peer."""


Frame = Data | Credit | Open | Accept | Fin | Reset | StopSending | Ping | Pong | GoAway


def count_data(frames: Sequence[Frame]) -> int:
    """Returns how many of the frames bring bytes of a stream."""
    return list(map(type, frames)).count(Data)


@dataclass(frozen=True, slots=True)
class Ack:
    """What every packet says about the packets that came the other way (PROTO 4.4)."""

    seq: int
    """The newest sequenced packet that was received; every one before it was received too."""
    delay_us: int
    """Microseconds that the newest of them waited for this ack."""
    received_us: int
    """When the newest of them arrived, in microseconds on the receiver's clock, modulo 2^32."""


@dataclass(frozen=True, slots=True)
class Packet:
    """The content of one message of the carrier: an ack and frames."""

    seq: int
    """The packet's number. 0 means unsequenced: it holds PING and PONG only and is never sent again (PROTO 4.2)."""
    ack: Ack
    frames: tuple[Frame, ...]
