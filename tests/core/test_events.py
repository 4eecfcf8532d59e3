"""tunnel.core.events: events are values that a shell may match on and compare."""

from __future__ import annotations

import dataclasses
import typing

import pytest

from tunnel.core import events as ev


@pytest.mark.parametrize("kind", typing.get_args(ev.Event))
def test_events_are_values(kind: type) -> None:
    fields = [field.name for field in dataclasses.fields(kind)]
    event = kind(*fields)
    assert event == kind(*fields)
    assert hash(event) == hash(kind(*fields))
    for name in fields:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(event, name, 1)
