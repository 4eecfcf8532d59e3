"""tunnel.core.machine and the three tables: what they allow, and whose fault the rest is."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.core.link import LINK, Link, LinkInput
from tunnel.core.machine import step_local, step_remote
from tunnel.core.streams.receive_half import RECEIVE, Receive, ReceiveInput
from tunnel.core.streams.send_half import SEND, Send, SendInput
from tunnel.core.wire.errors import LocalProtocolError, RemoteProtocolError

Machine = tuple[type[Enum], type[Enum], Mapping[Any, Any]]
TABLES: list[Machine] = [(Send, SendInput, SEND), (Receive, ReceiveInput, RECEIVE), (Link, LinkInput, LINK)]


@given(st.sampled_from(TABLES), st.data())
def test_every_step_stays_in_the_table_or_is_an_error(machine: Machine, data: st.DataObject) -> None:
    states, inputs, table = machine
    state: Any = data.draw(st.sampled_from(list(states)))
    event = data.draw(st.sampled_from(list(inputs)))
    steps: Any = table
    if (state, event) in table:
        assert step_local(steps, state, event) is step_remote(steps, state, event) is table[state, event]
        return
    text = f"{event.name.lower()} in state {state.name.lower()}"
    with pytest.raises(LocalProtocolError, match=text):
        step_local(steps, state, event)
    with pytest.raises(RemoteProtocolError, match=text):
        step_remote(steps, state, event)


@pytest.mark.parametrize("machine", TABLES, ids=["send", "receive", "link"])
def test_every_state_is_reached_from_the_first(machine: Machine) -> None:
    states, _, table = machine
    reached = {next(iter(states))}
    for _ in states:
        reached |= {after for (before, _), after in table.items() if before in reached}
    assert reached == set(states)


@pytest.mark.parametrize("state", [Receive.FIN_RECEIVED, Link.CLOSED])
def test_last_states_are_left_by_nothing(state: Enum) -> None:
    assert [key for table in (RECEIVE, LINK) for key in table if key[0] is state] == []


def test_a_direction_that_is_done_stays_done() -> None:
    assert {after for (before, _), after in SEND.items() if before is Send.DONE} == {Send.DONE}
