"""Encodes the JSON of answers, and decodes the JSON of boxes and clients so that foreign input is safe to parse."""

from __future__ import annotations

import orjson

from tunnel.kubeapi.status import Json

JSON_TYPE = ("content-type", "application/json")


def encode(item: Json) -> bytes:
    """Returns an object as JSON, with a line end for people who use curl."""
    return orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE)


def decode(data: bytes) -> object:
    """Returns what a JSON text says. The parser bounds how deeply it may be nested.

    Raises:
        ValueError: the text is not JSON.
    """
    return orjson.loads(data)


def dicts(value: object) -> list[Json]:
    """Returns the objects of a list that came from elsewhere; an empty list when it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
