"""Shows the node's own pods in EndpointSlices as they are, where the cloud cannot know it yet.

After a reboot pods have new addresses, and the controller that writes them into EndpointSlices is in the cloud. Until
it has, all that a Service leads to on the node is dead. The kubelet is the first to know of a pod, and tells it here:
so what it said last of a pod stands in the slices that are shown on the node, by the uid of the pod.

1. A new address counts at once, and as long as the slice has another one.
2. Whether the pod is ready counts together with a new address; and while the API server is away, and for SETTLE_S
   after it is back: it says that the pods of a node that was away are not ready until the kubelet has told it so.
3. An endpoint that is being ended stays as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from edge_agent.autonomy.feed import Feed
from tunnel.kubeapi.endpoint_slices import LocalPod, with_local_pods
from tunnel.kubeapi.replica import Item
from tunnel.kubeapi.status import Json

GROUP, RESOURCE = "discovery.k8s.io", "endpointslices"
SETTLE_S = 30.0
"""Seconds after which the cloud is believed again: the kubelet tells it of changes at once, and of all within ten."""
MAX_PODS = 1000
"""How many pods are remembered; a node has 110 by default."""


class LocalEndpoints:
    """What the kubelet said of pods."""

    def __init__(self, feeds: Callable[[], Iterable[Feed]]) -> None:
        """`feeds` returns all scopes."""
        self._feeds = feeds
        self._pods: dict[str, LocalPod] = {}
        self._settled: asyncio.TimerHandle | None = None
        self._believes = False
        """Whether the cloud is believed on what is ready."""

    def said(self, uid: str, status: Json) -> None:
        """Takes the status of a pod, as the kubelet tells it."""
        addresses = tuple(str(one.get("ip")) for one in _objects(status.get("podIPs")))
        conditions = _objects(status.get("conditions"))
        is_ready = any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)
        pod = LocalPod(addresses, is_ready, overrides=not self._believes)
        if self._pods.get(uid) == pod:
            return
        self._pods.pop(uid, None)
        self._pods[uid] = pod
        while len(self._pods) > MAX_PODS:
            del self._pods[next(iter(self._pods))]
        self._refresh(uid.encode())

    def turned(self, *, is_up: bool) -> None:
        """Takes that the API server is away, or back."""
        if self._settled is not None:
            self._settled.cancel()
            self._settled = None
        if is_up:
            self._settled = asyncio.get_running_loop().call_later(SETTLE_S, self._settle)
        elif self._believes:
            self._believe(is_believed=False)

    def close(self) -> None:
        """Forgets what is due."""
        if self._settled is not None:
            self._settled.cancel()

    def view(self, feed: Feed) -> Callable[[Item], Item] | None:
        """Returns how objects of a scope are shown; None where they are shown as they come."""
        if (feed.scope.group, feed.scope.resource) != (GROUP, RESOURCE):
            return None
        codec = feed.scope.codec

        def shown(item: Item) -> Item:
            try:
                raw = with_local_pods(item.raw, codec, self._pods) if self._pods else item.raw
            except ValueError:
                return item
            return item if raw == item.raw else item._replace(raw=raw)

        return shown

    # Internal

    def _settle(self) -> None:
        self._settled = None
        self._believe(is_believed=True)

    def _believe(self, *, is_believed: bool) -> None:
        self._believes = is_believed
        self._pods = {uid: pod._replace(overrides=not is_believed) for uid, pod in self._pods.items()}
        self._refresh()

    def _refresh(self, mention: bytes = b"") -> None:
        for feed in self._feeds():
            feed.show_anew(mention)


# Internal


def _objects(value: object) -> list[Json]:
    """Returns the objects of a list; none where there is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
