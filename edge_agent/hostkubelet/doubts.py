"""Finds what `edge-agent check` warns of in `[host]`: what is not there now is no fault, for it may be there later."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from edge_agent.hostkubelet.container_states import unusable
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
        accounts = await unusable(offer.accounts.values())  # each, though one that can be used makes the host usable
    finally:
        await running.aclose()
    absent = [(offer.containers[name], state) for name, state in states.items() if not state.exists]
    return [*accounts, *(_doubt(container, state) for container, state in absent if container.kind is not Kind.HOST)]


def _doubt(container: Container, state: ContainerState) -> str:
    text: str = state.state["waiting"]["message"]
    return f"units: {container.source}: {text}" if container.kind is Kind.UNIT else f"files: {text}"
