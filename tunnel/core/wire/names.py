"""What an agent may be called: its name is a Kubernetes node, a pod and a part of DNS-like CONNECT names."""

from __future__ import annotations

import re
from collections.abc import Collection

MAX_NAME_BYTES = 63
"""A DNS label (RFC 1123 2.1)."""
_AGENT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
AGENT_NAME_RULE = "1 to 63 of a-z, 0-9 and '-', not at the ends"
"""The rule in words, for messages."""

OURS = "longline/"
"""What the names of our own services begin with. No config can write it: `/` is in no service name (PROTO 2.8)."""
KUBELET = f"{OURS}kubelet"
"""The service that the fleet API asks an agent for."""
NODE = f"{OURS}node"
"""The service of a server to which an agent tells its Node anew (PROTO 3.11)."""
OLD_KUBELET = "kubelet"
"""What it was called before names of ours had their beginning. Agents still offer it, for servers that ask for it, so
that no other service may have this name."""


def as_offered(name: str, offered: Collection[str]) -> str:
    """Returns the name by which a peer offers a service of ours: an older build's is without `longline/`.

    Args:
        name: of ours, such as KUBELET.
        offered: what the peer said that it offers (`Node.services`).
    """
    plain = name.removeprefix(OURS)
    return plain if plain in offered and name not in offered else name


def is_service_name(text: str) -> bool:
    """Returns whether a text may name a service of a box: as an agent's name, but with a letter: no port."""
    return is_agent_name(text) and not text.isdigit()


def is_agent_name(text: str) -> bool:
    """Returns whether a text may name an agent."""
    return _AGENT_NAME.fullmatch(text) is not None
