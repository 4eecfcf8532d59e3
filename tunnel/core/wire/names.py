"""The names of agents and of services.

An agent's name is a Kubernetes node, a pod and a part of DNS-like CONNECT names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator

MAX_NAME_BYTES = 63
"""The longest name of an agent: that of a DNS label (RFC 1123 2.1)."""
_AGENT_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
AGENT_NAME_RULE = "1 to 63 of a-z, 0-9 and '-', not at the ends"
"""The rule in words, for messages."""

OURS = "longline/"
"""The prefix of the names of our own services. No configuration can use it: `/` is in no service name (PROTO 2.8)."""
KUBELET = f"{OURS}kubelet"
"""The service that the fleet API asks an agent for."""
NODE = f"{OURS}node"
"""The service of a server to which an agent tells its Node anew (PROTO 3.11)."""
OLD_KUBELET = "kubelet"
"""The name of KUBELET before our names began with OURS. Agents still offer it, for servers that ask for it, so no other
service may have this name.
"""


def as_offered(name: str, offered: Collection[str]) -> str:
    """Returns the name by which a peer offers a service of ours; older builds offer it without `longline/`.

    Args:
        name: of ours, such as KUBELET.
        offered: what the peer said that it offers (`Node.services`).
    """
    plain = name.removeprefix(OURS)
    return plain if plain in offered and name not in offered else name


def is_service_name(text: str) -> bool:
    """Returns whether a text may name a service of a box: it must be a possible agent's name that is not all digits,
    since that would be a port.
    """
    return is_agent_name(text) and not text.isdigit()


def is_agent_name(text: str) -> bool:
    """Returns whether a text may name an agent."""
    return _AGENT_NAME.fullmatch(text) is not None


_SIGNS = "-abcdefghijklmnopqrstuvwxyz0123456789"


def close_name(text: str, is_known: Callable[[str], bool]) -> str | None:
    """Returns the known name that a text was most likely meant to be, one slip of the finger away; None if none is.

    It asks for each name that is that near, some 40 for each character, so that it takes no longer among 10,000 names
    than among ten. A digit in place of another is the last that is thought of: box-7 and box-8 are two boxes.
    """
    text = text.lower().replace("_", "-")[:MAX_NAME_BYTES]
    return next((name for name in _near(text) if is_known(name)), None)


def meant(close: str | None) -> str:
    """Returns the end of a message about an unknown name: `, did you mean box-7?`; empty when `close` is None."""
    return f", did you mean {close}?" if close is not None else ""


def _near(text: str) -> Iterator[str]:
    yield text
    cuts = [(text[:at], text[at:]) for at in range(len(text) + 1)]
    yield from (left + right[1] + right[0] + right[2:] for left, right in cuts if len(right) > 1)
    yield from (left + right[1:] for left, right in cuts if right)
    for signs in (_SIGNS[:27], _SIGNS[27:]):
        yield from (left + sign + right for left, right in cuts for sign in signs)
        yield from (left + sign + right[1:] for left, right in cuts if right for sign in signs)
