"""How many boxes are at each address, as they were seen last: so many may come back from there at once."""

from __future__ import annotations

from collections import Counter

from tunnel.aio.carriers.peer_key import PeerKey
from tunnel.aio.process.limit_use import one_less

__all__ = ["Places"]


class Places:
    """The addresses of boxes. An IPv6 /64 counts as one."""

    def __init__(self) -> None:
        self._boxes: Counter[bytes] = Counter()

    def boxes_at(self, client: bytes) -> int:
        """Returns how many boxes were seen at an address last, given as `PeerKey.client`."""
        return self._boxes.get(client, 0)

    def moved(self, before: str, after: str) -> None:
        """Notes that a box is at another address, `ip:port`; empty for one that was nowhere before, or is forgotten."""
        old, new = (PeerKey.of_text(one).client if one else b"" for one in (before, after))
        if old == new:
            return
        if old:
            one_less(self._boxes, old)
        if new:
            self._boxes[new] += 1
