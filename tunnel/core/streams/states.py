"""The state machines of a stream's halves and of a session, as tables: what is absent is a protocol error (PROTO
5.1, 7.1).
"""

from __future__ import annotations

from enum import Enum, auto, unique
from typing import TypeVar

from tunnel.core.wire.errors import LocalProtocolError, RemoteProtocolError


class _State(Enum):
    """A key of the tables below: hashed by what it is, in C, where Enum would hash its name in Python."""

    __hash__ = object.__hash__


@unique
class Send(_State):
    """Where the sending half of a stream stands."""

    OPENING = auto()
    OPEN = auto()
    FINISHING = auto()
    """The end is queued behind bytes that still wait."""
    FIN_SENT = auto()
    DONE = auto()
    """The peer acknowledged the packet with FIN."""


@unique
class Receive(_State):
    """Where the receiving half of a stream stands."""

    OPENING = auto()
    OPEN = auto()
    FIN_RECEIVED = auto()


@unique
class Link(_State):
    """Where a session stands."""

    ATTACHED = auto()
    SUSPENDED = auto()
    """No carrier; the resume window runs."""
    CLOSED = auto()


@unique
class Input(_State):
    """What moves the machines."""

    ACCEPTED = auto()
    DATA = auto()
    FIN = auto()
    STOP = auto()
    FIN_SENT = auto()
    FIN_ACKED = auto()
    ATTACH = auto()
    DETACH = auto()
    CLOSE = auto()


SEND: dict[tuple[Send, Input], Send] = {
    (Send.OPENING, Input.ACCEPTED): Send.OPEN,
    (Send.OPEN, Input.DATA): Send.OPEN,
    (Send.OPEN, Input.FIN): Send.FINISHING,
    (Send.OPEN, Input.STOP): Send.FINISHING,
    (Send.FINISHING, Input.STOP): Send.FINISHING,
    (Send.FINISHING, Input.FIN_SENT): Send.FIN_SENT,
    # A STOP_SENDING may cross our FIN: the peer could not know.
    (Send.FIN_SENT, Input.STOP): Send.FIN_SENT,
    (Send.FIN_SENT, Input.FIN_ACKED): Send.DONE,
    (Send.DONE, Input.STOP): Send.DONE,
}

RECEIVE: dict[tuple[Receive, Input], Receive] = {
    (Receive.OPENING, Input.ACCEPTED): Receive.OPEN,
    (Receive.OPEN, Input.DATA): Receive.OPEN,
    (Receive.OPEN, Input.FIN): Receive.FIN_RECEIVED,
}

LINK: dict[tuple[Link, Input], Link] = {
    (Link.ATTACHED, Input.DETACH): Link.SUSPENDED,
    (Link.ATTACHED, Input.ATTACH): Link.ATTACHED,
    (Link.SUSPENDED, Input.ATTACH): Link.ATTACHED,
    (Link.ATTACHED, Input.CLOSE): Link.CLOSED,
    (Link.SUSPENDED, Input.CLOSE): Link.CLOSED,
}

State = TypeVar("State", Send, Receive, Link)


def step_local(table: dict[tuple[State, Input], State], state: State, event: Input) -> State:
    """The next state for something our own side did.

    Raises:
        LocalProtocolError: the table has no such step.
    """
    try:
        return table[state, event]
    except KeyError:
        raise LocalProtocolError(f"{event.name.lower()} in state {state.name.lower()}") from None


def step_remote(table: dict[tuple[State, Input], State], state: State, event: Input) -> State:
    """The next state for something the peer sent.

    Raises:
        RemoteProtocolError: the table has no such step.
    """
    try:
        return table[state, event]
    except KeyError:
        raise RemoteProtocolError(f"{event.name.lower()} in state {state.name.lower()}") from None
