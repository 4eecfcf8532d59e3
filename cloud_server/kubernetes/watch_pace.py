"""Keeps watches of one kind a second apart.

lightkube begins the next one as soon as one ends without an error. An API server that is shutting down, or a proxy that
streams nothing, ends each at once: that made 900 requests a second.
"""

from __future__ import annotations

import asyncio
from typing import Any

LEAST_S = 1.0


class WatchPace:
    """The pace of the watches of one client."""

    def __init__(self) -> None:
        self._not_before_s: dict[str, float] = {}
        """The loop time before which no watch is sent, by path: there are four."""

    def install(self, client: Any) -> None:
        """Puts the pace into a lightkube client, which has no place for that: it goes into the httpx client inside of
        it.
        """
        client._client._client.event_hooks["request"].append(self.wait)

    async def wait(self, request: Any) -> None:
        """Waits until a request may be sent. A request that is no watch is sent at once."""
        if "watch" not in request.url.params:
            return
        now_s = asyncio.get_running_loop().time()
        at_s = max(now_s, self._not_before_s.get(request.url.path, now_s))
        self._not_before_s[request.url.path] = at_s + LEAST_S
        await asyncio.sleep(at_s - now_s)
