"""Finds what `edge-agent check` warns of in `[host]`: what is not there now is no fault, for it may be there later."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from edge_agent.hostkubelet.offer import Offer
from edge_agent.hostkubelet.pod import Container, Kind
from edge_agent.hostkubelet.running import Running
from edge_agent.hostkubelet.settings import HostSettings
from edge_agent.hostkubelet.units import ContainerState


def doubts(settings: HostSettings) -> list[str]:
    """Returns what is missing on this box now, each behind its key of `[host]`.

    It takes seconds where something does not answer. A box whose systemd cannot be asked, as in an image that is being
    built, has no doubtful units.
    """
    return asyncio.run(_doubts(settings))


async def _doubts(settings: HostSettings) -> list[str]:
    running = Running()
    try:
        offer = Offer(settings, running, datetime.now(UTC))
        states = await offer.states.read()
    finally:
        await running.aclose()
    return [_doubt(offer.containers[name], state) for name, state in states.items() if not state.exists]


def _doubt(container: Container, state: ContainerState) -> str:
    text: str = state.state["waiting"]["message"]
    match container.kind:
        case Kind.HOST:
            return text  # which says itself whether it is `user` or another key
        case Kind.UNIT:
            return f"units: {container.source}: {text}"
        case Kind.FILE:
            return f"files: {text}"
