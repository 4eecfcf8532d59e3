"""What stands in the bodies of requests to the admin API."""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Collection
from datetime import timedelta

from tunnel.aio.operate.admin import AdminError


class Body:
    """The fields of one JSON object. Each method raises an AdminError, 400, for what is not as it should be."""

    def __init__(self, body: object) -> None:
        """Takes the decoded body. A body of None, of a request without one, counts as an object without fields.

        Raises:
            AdminError: 400, it is no object.
        """
        if body is not None and not isinstance(body, dict):
            raise AdminError(400, "the request's body is no JSON object")
        self._fields = body or {}

    def text(self, name: str, default: str | None = None) -> str:
        """Returns a text; `default`: what is returned where there is none, None: it must be there."""
        value = self._fields.get(name, default)
        if not isinstance(value, str):
            raise AdminError(400, f"{name} in the request's body must be a text")
        return value

    def flag(self, name: str) -> bool:
        """Returns true or false; it must be there."""
        value = self._fields.get(name)
        if not isinstance(value, bool):
            raise AdminError(400, f"{name} in the request's body must be true or false")
        return value

    def choice(self, name: str, choices: Collection[str]) -> str:
        """Returns one of some texts; it must be there."""
        value = self.text(name)
        if value not in choices:
            raise AdminError(400, f"{name} in the request's body must be one of {', '.join(choices)}")
        return value

    def choice_or(self, name: str, choices: Collection[str], default: str) -> str:
        """Returns one of some texts; `default`: where there is none."""
        return default if self._fields.get(name) is None else self.choice(name, choices)

    def count(self, name: str, default: int) -> int:
        """Returns a whole number above 0; `default`: where there is none."""
        value = self._fields.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise AdminError(400, f"{name} in the request's body must be a whole number above 0")
        return value

    def texts(self, name: str) -> list[str]:
        """Returns a list of texts; empty where there is none."""
        value = self._fields.get(name) or []
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise AdminError(400, f"{name} in the request's body must be a list of texts")
        return value

    def texts_by_name(self, name: str, *, removal: bool = False) -> dict[str, str]:
        """Returns an object of texts; empty where there is none. `removal`: null may stand for a text."""
        value = self._fields.get(name) or {}
        good = (str, type(None)) if removal else (str,)
        if not isinstance(value, dict) or not all(isinstance(one, good) for one in value.values()):
            raise AdminError(400, f"{name} in the request's body must be an object of texts")
        return value

    def octets(self, name: str) -> bytes:
        """Returns what stands there in base64; it must be there."""
        try:
            return base64.b64decode(self.text(name), validate=True)
        except (ValueError, binascii.Error) as error:
            raise AdminError(400, f"{name} in the request's body must be base64") from error

    def life(self, name: str, most: timedelta) -> timedelta | None:
        """Returns a number of seconds above 0; None where it is not there."""
        value = self._fields.get(name)
        if value is None:
            return None
        good = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not 0 < value <= most.total_seconds():
            raise AdminError(400, f"{name} in the request's body must be seconds: above 0, up to {most.days} days")
        return timedelta(seconds=value)
