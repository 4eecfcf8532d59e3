"""Holds a route: one way to what a client asked for."""

from __future__ import annotations

from typing import NamedTuple

from tunnel.core.wire.target import Target

LOCALHOST = "localhost"


class Route(NamedTuple):
    """An agent, and what it is to connect to."""

    agent: str
    target: Target
