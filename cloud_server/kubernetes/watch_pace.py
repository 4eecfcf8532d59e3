"""Keeps watches of one kind a second apart.

lightkube begins the next one as soon as one ends without an error. An API server that is shutting down, or a proxy that
streams nothing, ends each at once: that made 900 requests a second.
"""

from __future__ import annotations

import asyncio
from typing import Any

LEAST_S = 1.0


class WatchPace:
    """For the requests of one client."""

    def __init__(self) -> None:
        self._not_before_s: dict[str, float] = {}
        """Loop time by path: there are four."""

    def install(self, client: Any) -> None:
        """Take a place in a lightkube client, which gives its users none: it is in httpx's that is inside of it."""
        client._client._client.event_hooks["request"].append(self.wait)

    async def wait(self, request: Any) -> None:
        """Wait until a request may be sent; what is no watch, never."""
        if "watch" not in request.url.params:
            return
        now_s = asyncio.get_running_loop().time()
        at_s = max(now_s, self._not_before_s.get(request.url.path, now_s))
        self._not_before_s[request.url.path] = at_s + LEAST_S
        await asyncio.sleep(at_s - now_s)
