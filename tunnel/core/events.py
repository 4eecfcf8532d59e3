"""The events by which the core tells its shell what happened.

Events of a stream carry its id; the shell looks its own object up by it.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunnel.core.wire.errors import Code, OpenRefused, StreamError, TunnelError
from tunnel.core.wire.principal import Principal
from tunnel.core.wire.target import Target


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """The peer opened a stream; answer with `accept_stream` or `reset_stream`."""

    stream_id: int
    target: Target
    deadline_s: float
    """When, on the session's clock, the peer gives up."""
    principal: Principal
    trace_id: str
    """Empty when the peer gave none."""
    agent: str = ""
    """The agent whose target it is, when a server forwards the stream; empty when it is a target of this side."""


@dataclass(frozen=True, slots=True)
class OpenTurnedDown:
    """The peer asked for a stream and was refused at once: too many, too fast, or this side takes none any more."""

    target: Target
    principal: Principal
    trace_id: str
    refusal: OpenRefused


@dataclass(frozen=True, slots=True)
class StreamAccepted:
    """The peer connected a stream that this side opened."""

    stream_id: int
    resolved_address: str


@dataclass(frozen=True, slots=True)
class StreamReadable:
    """Bytes arrived where none were waiting."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamFinished:
    """The peer's FIN arrived; bytes before it may still wait to be taken."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamWritable:
    """A stream whose queue was full has room again."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """The stream has ended. This is its last event."""

    stream_id: int
    error: StreamError | None
    """Why it ended; None when both directions finished and the peer has everything."""


@dataclass(frozen=True, slots=True)
class PeerSuspect:
    """The peer is silent and was asked for a sign of life."""


@dataclass(frozen=True, slots=True)
class CarrierDead:
    """The carrier was silent for too long and must be closed. The session is suspended."""

    silent_s: float


@dataclass(frozen=True, slots=True)
class PeerGoingAway:
    """The peer takes no new streams."""

    code: Code
    text: str
    reconnect_after_s: float


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The session and all its streams have ended. This is its last event."""

    error: TunnelError | None
    """Why it ended; None when this side closed it."""


Event = (
    StreamOpened
    | OpenTurnedDown
    | StreamAccepted
    | StreamReadable
    | StreamFinished
    | StreamWritable
    | StreamEnded
    | PeerSuspect
    | CarrierDead
    | PeerGoingAway
    | SessionClosed
)
