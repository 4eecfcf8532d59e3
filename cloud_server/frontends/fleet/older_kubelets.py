"""Remembers which kubelets turn down the newest streaming protocols: their clients are told so without another way to
the box.

kubectl since 1.30 offers WebSocket alone first, which kube-apiserver translates and most kubelets do not speak. When it
is turned down, it comes again with SPDY, which they do speak.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from cloud_server.agents.agents import AgentView
from tunnel.aio.http.http1 import Response

NEWEST = frozenset(("v5.channel.k8s.io", "SPDY/3.1+portforward.k8s.io"))
"""The newest protocols. A client that offers nothing else has something else to fall back on."""
_TURNED_DOWN = (400, 403)
"""The statuses by which the CRI's WebSocket of old turns them down: 403 for a protocol that it does not know, 400 for a
port that is not in the query.
"""


class OlderKubelets:
    """What was learned of each agent's kubelet since the agent connected; a newer kubelet is noticed when it connects
    again.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[datetime | None, set[str]]] = {}

    def turn_down(self, agent: AgentView, offered: Iterable[str]) -> bool:
        """Returns whether the agent's kubelet would turn down all of the offered protocols."""
        protocols = set(offered)
        return bool(protocols) and protocols <= self._of(agent)

    def note(self, agent: AgentView, offered: Iterable[str], answer: Response) -> None:
        """Learns from what the agent's kubelet answered to an offer of protocols."""
        protocols = set(offered)
        # A kubelet that knows what it was asked for says no with a Status.
        knows = "json" in (answer.headers.get("content-type") or "")
        if answer.status in _TURNED_DOWN and not knows and protocols <= NEWEST:
            self._known[agent.name] = (agent.since, self._of(agent) | protocols)

    def _of(self, agent: AgentView) -> set[str]:
        since, protocols = self._known.get(agent.name, (None, set()))
        return protocols if since == agent.since else set()
