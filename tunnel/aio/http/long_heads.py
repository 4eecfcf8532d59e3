"""Bounds the memory for heads of requests that are longer than usual: a command line of hundreds of kilobytes rides in
one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from tunnel.core.streams.budget import Budget

STRANGERS_BYTES = 16 * 1024 * 1024
"""Bytes for all clients together that have not proved yet who they are: whoever comes with a token has it in the head
itself. When strangers hold all of it, a head of up to 64 KiB still passes, and one stream of each HTTP/2 connection.
"""
USERS_BYTES = 64 * 1024 * 1024
"""Bytes for all clients together that have proved who they are: by a certificate in the handshake, or by an earlier
request on their connection.
"""


class HeadLimits(NamedTuple):
    """What heads that are longer than usual may take, in bytes."""

    strangers: int = STRANGERS_BYTES
    users: int = USERS_BYTES


@dataclass(frozen=True, slots=True)
class LongHeads:
    """The two pools of memory of one front end."""

    strangers: Budget = field(default_factory=lambda: Budget(total_bytes=STRANGERS_BYTES))
    users: Budget = field(default_factory=lambda: Budget(total_bytes=USERS_BYTES))

    def limit(self, limits: HeadLimits) -> None:
        """Lets clients have so much from now on."""
        self.strangers.total_bytes, self.users.total_bytes = limits

    def of(self, *, trusted: bool) -> Budget:
        """Returns the pool that a client takes from."""
        return self.users if trusted else self.strangers
