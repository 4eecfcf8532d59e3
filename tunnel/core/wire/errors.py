"""The one tree of errors and the codes that travel on the wire.

    TunnelError                      code, scope
    ├── LocalProtocolError           our own code used the core wrongly: a bug here
    ├── RemoteProtocolError          the peer broke a rule of docs/protocol.md: ends the session
    ├── SessionRefused               the peer would not start a session
    └── StreamError                  one stream is affected, never its session
        ├── OpenRefused              the stream never opened: not allowed, refused, deadline, agent away
        ├── StreamReset              the peer ended the stream with a code
        ├── SessionLost              the session behind the stream is gone and cannot be resumed
        ├── StreamClosed             this side had already closed it
        └── StreamBusy               a second reader or writer

Nothing of asyncio, grpc or the operating system appears here; the shells map those at their edge.
"""

from __future__ import annotations

from enum import Enum, IntEnum, unique
from typing import ClassVar, Final, Self

from tunnel.core.wire import faults
from tunnel.core.wire.faults import Fault, coded, decoded

GAVE_UP: Final = "the client gave up"
"""The message of a cancellation that comes from who asked for something, not from a daemon that stops."""


@unique
class Code(IntEnum):
    """The reasons why a stream or session ends, as sent in RESET, STOP_SENDING, GOAWAY and Refusal (PROTO 9)."""

    NONE = 0
    INTERNAL = 1
    PROTOCOL_ERROR = 2
    FLOW_CONTROL = 3
    LIMIT_EXCEEDED = 4
    CANCELLED = 5
    SESSION_LOST = 6
    SHUTTING_DOWN = 7
    CONNECTION_RESET = 8
    KILLED = 9
    STANDING_LOST = 10
    ORPHANED = 11
    NOT_ALLOWED = 16
    UNKNOWN_AGENT = 17
    AGENT_AWAY = 18
    DEADLINE = 19
    REFUSED = 20
    UNREACHABLE = 21
    NAME_NOT_FOUND = 22
    NO_SERVICE = 23
    AMBIGUOUS = 24
    UNSUPPORTED_VERSION = 32
    IDENTITY_REJECTED = 33
    REPLACED = 34

    @classmethod
    def from_wire(cls, value: int) -> Code:
        """Returns the code for a number from a peer; one that this build does not know is INTERNAL (PROTO 9.2)."""
        try:
            return cls(value)
        except ValueError:
            return cls.INTERNAL

    @property
    def label(self) -> str:
        """Returns how the code is written in logs and metrics, such as `connection_reset`."""
        return self.name.lower()


FAULT_OF_CODE: Final[dict[Code, Fault]] = {
    Code.NONE: faults.GIVEN_UP,
    Code.INTERNAL: faults.BUG,
    Code.PROTOCOL_ERROR: faults.PROTOCOL_BROKEN,
    Code.FLOW_CONTROL: faults.PROTOCOL_BROKEN,
    Code.LIMIT_EXCEEDED: faults.TOO_MANY_STREAMS,
    Code.CANCELLED: faults.GIVEN_UP,
    Code.SESSION_LOST: faults.SESSION_LOST,
    Code.SHUTTING_DOWN: faults.SHUTTING_DOWN,
    Code.CONNECTION_RESET: faults.CONNECTION_RESET,
    Code.KILLED: faults.KILLED,
    Code.STANDING_LOST: faults.STANDING_LOST,
    Code.ORPHANED: faults.NOBODY_READS,
    Code.NOT_ALLOWED: faults.NOT_ALLOWED,
    Code.UNKNOWN_AGENT: faults.AGENT_NOT_KNOWN,
    Code.AGENT_AWAY: faults.AGENT_AWAY,
    Code.DEADLINE: faults.OPEN_TIMED_OUT,
    Code.REFUSED: faults.TARGET_REFUSED,
    Code.UNREACHABLE: faults.TARGET_UNREACHABLE,
    Code.NAME_NOT_FOUND: faults.TARGET_NAME_NOT_FOUND,
    Code.NO_SERVICE: faults.NO_SERVICE,
    Code.AMBIGUOUS: faults.AMBIGUOUS,
    Code.UNSUPPORTED_VERSION: faults.VERSION_NOT_SPOKEN,
    Code.IDENTITY_REJECTED: faults.AGENT_UNKNOWN,
    Code.REPLACED: faults.REPLACED,
}
"""The cause that each wire code stands for when nothing names the cause more closely."""


class Scope(Enum):
    """How much an error ends: one stream, or the session with all its streams."""

    STREAM = "stream"
    SESSION = "session"


class TunnelError(Exception):
    """Root of every error that Longline raises on purpose.

    Attributes:
        code: the wire code; it is what the other side is told.
        text: one line for a person, without secrets; may be empty.
        fault: the cause, more closely than `code`; see `tunnel/core/wire/faults.py`.
    """

    scope: ClassVar[Scope] = Scope.SESSION
    default_code: ClassVar[Code] = Code.INTERNAL

    def __init__(self, text: str = "", code: Code | None = None, fault: Fault | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.code = self.default_code if code is None else code
        self.fault = FAULT_OF_CODE[self.code] if fault is None else fault

    def __str__(self) -> str:
        return self.text or self.code.label.replace("_", " ")

    @classmethod
    def from_peer(cls, text: str, code: Code) -> Self:
        """Returns the error that a peer tells of; its text may begin with the code of the fault (PROTO 9.3)."""
        text, fault = decoded(text)
        return cls(text, code, fault)

    @property
    def told(self) -> str:
        """Returns the text as a peer is told it, with the code of the fault in front where the wire code does not imply
        it.
        """
        return str(self) if self.fault is FAULT_OF_CODE[self.code] else coded(str(self), self.fault)


class LocalProtocolError(TunnelError):
    """Our own side called the core in a way that the protocol does not allow."""


class RemoteProtocolError(TunnelError):
    """The peer sent what docs/protocol.md forbids. The session ends; its carrier is closed with this code."""

    default_code = Code.PROTOCOL_ERROR


class SessionRefused(TunnelError):
    """The peer answered Hello with a Refusal.

    Attributes:
        retry_after_s: how long the peer asks us to wait; 0.0 means that it gave no advice.
    """

    def __init__(self, text: str, code: Code, retry_after_s: float = 0.0, fault: Fault | None = None) -> None:
        super().__init__(text, code, fault)
        self.retry_after_s = retry_after_s


class StreamError(TunnelError):
    """One stream is affected; its session goes on."""

    scope = Scope.STREAM


class OpenRefused(StreamError):
    """A stream could not be opened; `code` says why and decides the front end's answer."""

    default_code = Code.REFUSED


class StreamReset(StreamError):
    """The peer ended the stream at once; bytes may be missing."""

    default_code = Code.CANCELLED


class SessionLost(StreamError):
    """The session is gone for good: its resume window is over, or a process behind it ended."""

    default_code = Code.SESSION_LOST


class StreamClosed(StreamError):
    """The stream was used after this side had closed it."""

    default_code = Code.CANCELLED


class StreamBusy(StreamError):
    """A second task tried to read or write a stream that already has one."""
