"""Holds what is asked for at the door: who wants to be connected to what, through which way in."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from cloud_server.routing.route import Route
from cloud_server.trust.caller import Caller
from tunnel.core.wire.frames import TrafficClass

TRACE_ID_BYTES = 8


def new_trace_id() -> str:
    """Returns 16 hexadecimal digits that name one connection in all logs and records of both sides."""
    return secrets.token_hex(TRACE_ID_BYTES)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequest:
    """A request for one open, as a front end makes it."""

    caller: Caller
    frontend: str
    """The name of the front end, such as `connect`."""
    peer: str
    """The address of the client, such as `192.0.2.1:5000`."""
    asked: str
    """The target in the client's words."""
    via: str = ""
    """The agent in whose network `asked` is meant; empty for whichever the routing finds."""
    route: Route | None = None
    """The route, if the front end knows it; None for what the routing makes of `asked` and `via`."""
    deadline_s: float = 10.0
    """Seconds within which an answer comes."""
    traffic_class: TrafficClass = TrafficClass.AUTO
    early_data: bytes = b""
    """The first bytes, up to MAX_EARLY_BYTES: they spare a round trip. When the open is refused, the target never had
    any of them.
    """
    trace_id: str = field(default_factory=new_trace_id)
    about: Mapping[str, object] = field(default_factory=dict)
    """More for the record: action, pod, container, command."""
    is_read: bool = False
    """Whether the server asks for what it shows, on nobody's behalf. Such reads are recorded folded: one by one they
    would bury the rest.
    """
