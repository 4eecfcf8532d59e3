"""What `edge-agent check` says of `[host]` that is no fault: what is not there now may be there later."""

from __future__ import annotations

import asyncio

from edge_agent.hostkubelet.server import HostKubelet
from edge_agent.hostkubelet.settings import HostSettings


def doubts(settings: HostSettings) -> list[str]:
    """What is missing on this box now, in words; seconds pass where something does not answer.

    A box whose systemd cannot be asked, as in an image that is being built, has no doubtful units.
    """
    return asyncio.run(_doubts(settings))


async def _doubts(settings: HostSettings) -> list[str]:
    kubelet = HostKubelet("check", settings)
    try:
        states = await kubelet.states()
    finally:
        await kubelet.aclose()
    return [f"{name}: {state.state['waiting']['message']}" for name, state in states.items() if not state.exists]
