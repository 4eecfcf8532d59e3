"""What a build can do beyond protocol 1, by names that both sides say in the handshake (PROTO 3.8)."""

from __future__ import annotations

from collections.abc import Iterable

PRINCIPAL = "principal"
"""OPEN says who asks as a message; nobody needs it in words any more."""
NODE_SERVICE = "node-service"
"""The server offers `longline/node`, by which an agent tells its Node anew without a new session."""
FEATURES: frozenset[str] = frozenset({PRINCIPAL, NODE_SERVICE})
"""Those of this build."""
MAX_FEATURES = 64
MAX_FEATURE_BYTES = 63


def common(told: Iterable[str]) -> frozenset[str]:
    """Returns what both sides can do, of what the peer said that it can."""
    return FEATURES.intersection(told)
