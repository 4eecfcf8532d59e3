"""State machines as tables, (state, input) -> state. A step that is absent from its table is a protocol error.

Each machine stands in the file of what it is the life of: `streams/send_half.py`, `streams/receive_half.py`, `link.py`.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeVar

from tunnel.core.wire.errors import LocalProtocolError, RemoteProtocolError


class Symbol(Enum):
    """A state or an input of a machine.

    As keys of tables they are hashed in C by identity, where Enum would hash names.
    """

    __hash__ = object.__hash__


State = TypeVar("State", bound=Symbol)
Input = TypeVar("Input", bound=Symbol)


def step_local(table: dict[tuple[State, Input], State], state: State, event: Input) -> State:
    """Returns the next state for something that our own side did.

    Raises:
        LocalProtocolError: the table has no such step.
    """
    try:
        return table[state, event]
    except KeyError:
        raise LocalProtocolError(f"{event.name.lower()} in state {state.name.lower()}") from None


def step_remote(table: dict[tuple[State, Input], State], state: State, event: Input) -> State:
    """Returns the next state for something that the peer sent.

    Raises:
        RemoteProtocolError: the table has no such step.
    """
    try:
        return table[state, event]
    except KeyError:
        raise RemoteProtocolError(f"{event.name.lower()} in state {state.name.lower()}") from None
