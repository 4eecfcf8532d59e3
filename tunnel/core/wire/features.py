"""The names of what a build can do beyond protocol 1, which both sides say in the handshake (PROTO 3.8)."""

from __future__ import annotations

from collections.abc import Iterable

PRINCIPAL = "principal"
"""OPEN carries the principal as a message, so that it is not needed in words as well."""
NODE_SERVICE = "node-service"
"""The server offers the service `longline/node`, through which an agent tells its Node anew without a new session."""
FEATURES: frozenset[str] = frozenset({PRINCIPAL, NODE_SERVICE})
"""The features of this build."""
MAX_FEATURES = 64
MAX_FEATURE_BYTES = 63


def common(told: Iterable[str]) -> frozenset[str]:
    """Returns the features that both sides have, given those that the peer named."""
    return FEATURES.intersection(told)
