"""JSON of answers and of what boxes and clients send, with the limits that make foreign JSON safe to decode."""

from __future__ import annotations

import orjson

from tunnel.kubeapi.status import Json

JSON_TYPE = ("content-type", "application/json")


def encode(item: Json) -> bytes:
    """Serialize an object, with a line end for people who use curl."""
    return orjson.dumps(item, option=orjson.OPT_APPEND_NEWLINE)


def decode(data: bytes) -> object:
    """Parse JSON; nesting is bounded by the parser.

    Raises:
        ValueError: it is none.
    """
    return orjson.loads(data)
