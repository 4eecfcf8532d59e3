"""What an agent may be called: its name is a Kubernetes node, a pod and a part of DNS-like CONNECT names."""

from __future__ import annotations

import re

MAX_NAME_BYTES = 63
"""A DNS label (RFC 1123 2.1)."""

_AGENT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
AGENT_NAME_RULE = "1 to 63 of a-z, 0-9 and '-', not at the ends"
"""The rule in words, for messages."""


KUBELET = "kubelet"
"""The service that the fleet API asks an agent for; no other may have its name."""


def is_service_name(text: str) -> bool:
    """Whether a text may name a service of a box: as an agent's name, but with a letter, so that it is no port."""
    return is_agent_name(text) and not text.isdigit()


def is_agent_name(text: str) -> bool:
    """Whether a text may name an agent."""
    return _AGENT_NAME.fullmatch(text) is not None
