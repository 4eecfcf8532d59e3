"""Who asks, in tests."""

from __future__ import annotations

from tunnel.core.wire.principal import Principal, PrincipalKind


def user(name: str) -> Principal:
    """Returns a user of that name."""
    return Principal(kind=PrincipalKind.USER, name=name)


ANN = user("ann")
