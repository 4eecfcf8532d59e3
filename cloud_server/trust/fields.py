"""Writes and reads the fields of a record's JSON object. What is None is left out; types are checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson


def as_bytes(**values: object) -> bytes:
    """Returns a JSON object of the values that are not None."""
    kept = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in values.items()
        if value is not None
    }
    return json.dumps(kept).encode()


class Fields:
    """The fields of one JSON object.

    Each method raises a TypeError or ValueError for a field that is not as it should be.
    """

    def __init__(self, body: bytes) -> None:
        values = orjson.loads(body)
        if not isinstance(values, dict):
            raise TypeError("it is no object")
        self._values: Mapping[str, Any] = values

    def text(self, name: str, default: str | None = None) -> str:
        """Returns a text; `default` when there is none. With a `default` of None the field must be there."""
        value = self._values.get(name, default)
        if not isinstance(value, str):
            raise TypeError(f"{name} is no text")
        return value

    def number(self, name: str, default: int) -> int:
        """Returns a whole number; `default` when there is none."""
        value = self._values.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} is no whole number")
        return value

    def count(self, name: str) -> int:
        """Returns a number of times; 0 when there is none."""
        value = self.number(name, 0)
        if value < 0:
            raise ValueError(f"{name} is less than none")
        return value

    def flag(self, name: str) -> bool:
        """Returns whether a flag is set; False when there is none."""
        value = self._values.get(name, False)
        if not isinstance(value, bool):
            raise TypeError(f"{name} is neither true nor false")
        return value

    def needed(self, name: str) -> datetime:
        """Returns a moment. The field must be there."""
        return datetime.fromisoformat(self.text(name))

    def moment(self, name: str) -> datetime | None:
        """Returns a moment; None when there is none."""
        return None if self._values.get(name) is None else self.needed(name)

    def texts(self, name: str) -> tuple[str, ...] | None:
        """Returns a list of texts; None when there is none."""
        value = self._values.get(name)
        if value is None:
            return None
        if not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
            raise TypeError(f"{name} is no list of texts")
        return tuple(value)

    def labels(self, name: str) -> dict[str, str]:
        """Returns an object of texts; empty when there is none."""
        value = self._values.get(name, {})
        if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
            raise TypeError(f"{name} is no object of texts")
        return dict(value)
