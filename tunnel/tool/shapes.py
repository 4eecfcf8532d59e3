"""Says what a document of a server must look like before a command reads it, and where one does not.

A server may be of another version, or none of ours. Whoever asked it is told in one sentence, not by a traceback.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Union


class Kind(Enum):
    """A value that is no list and no object; the text is for error lines."""

    TEXT = "a text"
    NUMBER = "a number"
    FLAG = "true or false"
    MOMENT = "a time such as 2026-01-31T12:00:00+00:00"
    ANY = "anything"


TEXT, NUMBER, FLAG, MOMENT, ANY = Kind.TEXT, Kind.NUMBER, Kind.FLAG, Kind.MOMENT, Kind.ANY


@dataclass(frozen=True, slots=True)
class Needed:
    """A field that must be there; others may be missing or null."""

    shape: Shape


@dataclass(frozen=True, slots=True)
class Named:
    """An object whose names are anything, and whose values are alike."""

    shape: Shape


Shape = Union[Kind, Needed, Named, "list[Shape]", "Mapping[str, Shape]"]
"""What a value must be: a kind; `[shape]`, a list of such values; an object with these fields, among others."""
MAX_PLACE_CHARS = 200
_NAMES = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}


def mismatch(document: object, shape: Shape) -> str:
    """Returns the first place where a document is not as it must be, in words; empty when it is."""
    try:
        _check(document, shape)
    except _Wrong as wrong:
        return wrong.told()
    return ""


# Internal


class _Wrong(Exception):
    """A value is not as it must be. Its place is put together on the way out: documents are long, and mostly good."""

    def __init__(self, wanted: str, value: object) -> None:
        super().__init__(wanted)
        self.place = ""
        self._wanted = wanted
        self._found = _NAMES.get(type(value), "something else") if value is not None else "missing"

    def told(self) -> str:
        found = "none" if self._found == _NAMES[str] and self._wanted == Kind.MOMENT.value else self._found
        return f"{self.place.removeprefix('.')[:MAX_PLACE_CHARS] or 'it'} must be {self._wanted}, and is {found}"


def _check(value: object, shape: Shape) -> None:
    if isinstance(shape, Kind):
        if not _is(value, shape):
            raise _Wrong(shape.value, value)
    elif isinstance(shape, Needed):
        _check(value, shape.shape)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise _Wrong("a list", value)
        for index, one in enumerate(value):
            _check_at(one, shape[0], index)
    elif not isinstance(value, dict):
        raise _Wrong("an object", value)
    else:
        _check_object(value, shape)


def _check_object(value: dict[str, object], shape: Named | Mapping[str, Shape]) -> None:
    if isinstance(shape, Named):
        for name, one in value.items():
            if one is not None:
                _check_at(one, shape.shape, name)
        return
    for name, inner in shape.items():
        one = value.get(name)
        if one is not None or isinstance(inner, Needed):
            _check_at(one, inner, name)


def _check_at(value: object, shape: Shape, place: str | int) -> None:
    try:
        _check(value, shape)
    except _Wrong as wrong:
        wrong.place = f"{f'[{place}]' if isinstance(place, int) else f'.{place}'}{wrong.place}"
        raise


def _is(value: object, kind: Kind) -> bool:
    match kind:
        case Kind.TEXT:
            return isinstance(value, str)
        case Kind.NUMBER:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case Kind.FLAG:
            return isinstance(value, bool)
        case Kind.MOMENT:
            return isinstance(value, str) and _is_moment(value)
    return True


def _is_moment(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
