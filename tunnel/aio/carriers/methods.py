"""The three gRPC methods of protos/tunnel.proto, and the two headers beside them; nothing else is answered."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

CONNECT: Final = "/longline.v1.Tunnel/Connect"
JOIN: Final = "/longline.v1.Enrollment/Join"
RENEW: Final = "/longline.v1.Enrollment/Renew"

ACCEPTED: Final = ("longline-accepted", "1")
"""The first header of an accepted Connect. A refusal has headers too, and its status may arrive a moment after them."""

_TIME: Final = "longline-time"


def time_header() -> tuple[str, str]:
    """Returns the header of every accepted call that tells the server's clock (PROTO 1.5): a box's may be wrong."""
    return _TIME, str(int(datetime.now(UTC).timestamp()))


def clock_ahead(headers: Iterable[tuple[str, str | bytes]]) -> timedelta | None:
    """Returns by how much this machine's clock is ahead of the server's; None when the server did not say."""
    text = next((value for name, value in headers if name == _TIME), "")
    if not isinstance(text, str) or not (text.isascii() and text.isdigit()) or len(text) > 11:
        return None
    return datetime.now(UTC) - datetime.fromtimestamp(int(text), UTC)
