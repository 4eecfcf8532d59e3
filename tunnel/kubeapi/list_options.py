"""Reads the options of lists and watches, and refuses those that make no sense, as an API server does.

The rules are those of apimachinery v0.34 `pkg/apis/meta/internalversion/validation`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tunnel.kubeapi.status import ApiError, invalid

EXACT, NOT_OLDER = "Exact", "NotOlderThan"
_FALSE = ("0", "false")
_GROUP = "meta.k8s.io"
_MATCH = "resourceVersionMatch"


class Query:
    """The decoded query of a request."""

    def __init__(self, items: Sequence[tuple[str, str]]) -> None:
        self._items = items

    def text(self, name: str, default: str = "") -> str:
        """Returns the first value of a parameter; `default` when it is not given."""
        return next((value for key, value in self._items if key == name), default)

    def every(self, name: str) -> list[str]:
        """Returns all values of a parameter, in their order."""
        return [value for key, value in self._items if key == name]

    def flag(self, name: str) -> bool:
        """Returns whether a parameter is given and not false; `?watch` alone is true."""
        return any(key == name and value.lower() not in _FALSE for key, value in self._items)

    def number(self, name: str, default: int) -> int:
        """Returns a parameter that is a whole number from 0; `default` when it is not given or empty.

        Raises:
            ApiError: 400, it is no such number.
        """
        text = self.text(name)
        if not text:
            return default
        if not re.fullmatch(r"\d{1,18}", text):
            raise ApiError(400, f"invalid value {text!r} for {name}: expected a whole number")
        return int(text)


def check_list_options(query: Query) -> None:
    """Checks what a list asks for.

    Raises:
        ApiError: 400 or 422, it makes no sense.
    """
    query.number("timeoutSeconds", 0)  # a list takes no time, but nonsense is told
    match, asked = query.text(_MATCH), query.text("resourceVersion")
    if query.text("sendInitialEvents"):
        raise _invalid("sendInitialEvents", "Forbidden: sendInitialEvents is forbidden for list")
    if match:
        _check_match(match, (EXACT, NOT_OLDER), query)
        if not asked:
            raise _invalid(_MATCH, f"Forbidden: {_MATCH} is forbidden unless resourceVersion is provided")
        if match == EXACT and asked == "0":
            raise _invalid(_MATCH, f'Forbidden: {_MATCH} "exact" is forbidden for resourceVersion "0"')


def check_watch_options(query: Query) -> None:
    """Checks what a watch asks for.

    Raises:
        ApiError: 422, it makes no sense.
    """
    match, initial = query.text(_MATCH), query.text("sendInitialEvents")
    if initial and match != NOT_OLDER:
        raise _invalid(_MATCH, f"Forbidden: sendInitialEvents requires setting {_MATCH} to {NOT_OLDER}")
    if match:
        if not initial:
            raise _invalid(_MATCH, f"Forbidden: {_MATCH} is forbidden for watch unless sendInitialEvents is provided")
        _check_match(match, (NOT_OLDER,), query)


def too_new(asked: int, current: int) -> ApiError:
    """Makes the error that a version is asked for which has not come yet; clients then list anew."""
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    text = f"Too large resource version: {asked}, current: {current}"
    return ApiError(504, text, details={"causes": causes, "retryAfterSeconds": 1})


# Internal


def _check_match(match: str, known: tuple[str, ...], query: Query) -> None:
    if query.text("continue"):
        raise _invalid(_MATCH, f"Forbidden: {_MATCH} is forbidden when continue is provided")
    if match not in known:
        shown = ", ".join(f'"{name}"' for name in known)
        raise _invalid(_MATCH, f'Unsupported value: "{match[:64]}": supported values: {shown}')


def _invalid(field: str, message: str) -> ApiError:
    return invalid("ListOptions", _GROUP, field, message)
