"""Counts what front ends open, and what goes through it."""

from __future__ import annotations

import asyncio
import time

from cloud_server.opens.opener import Opener
from cloud_server.operate.metrics import Metrics
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.target import Target


class MeteredOpener:
    """An Opener that tells the metrics how each dial to an agent went, and what became of its stream."""

    def __init__(self, opener: Opener, metrics: Metrics) -> None:
        self._opener = opener
        self._metrics = metrics

    async def open(
        self,
        agent: str,
        target: Target,
        *,
        principal: str,
        frontend: str,
        deadline_s: float = 10.0,
        early_data: bytes = b"",
    ) -> Stream:
        """See Opener."""
        with self._metrics.dial(frontend):
            try:
                stream = await self._opener.open(
                    agent,
                    target,
                    principal=principal,
                    frontend=frontend,
                    deadline_s=deadline_s,
                    early_data=early_data,
                )
            except OpenRefused as refused:
                self._metrics.refused(frontend, refused.code)
                raise
            except asyncio.CancelledError:
                self._metrics.refused(frontend, Code.CANCELLED)
                raise
        self._metrics.opened(frontend)
        started_s = time.monotonic()

        def ended() -> None:
            counts = stream.statistics()
            self._metrics.stream_ended(
                frontend,
                "closed" if stream.error is None else stream.error.code.label,
                to_agent_bytes=counts.bytes_sent,
                from_agent_bytes=counts.bytes_received,
                duration_s=time.monotonic() - started_s,
            )

        stream.when_ended(ended)
        return stream
