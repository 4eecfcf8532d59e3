"""Shows the node's own pods in EndpointSlices as they are, where the cloud cannot know it yet.

After a reboot pods have new addresses, and the controller that writes them into EndpointSlices is in the cloud. Until
it has, all that a Service leads to on the node is dead. The kubelet is the first to know of a pod, and tells it here:
so what it said last of a pod stands in the slices that are shown on the node, by the uid of the pod. Of a pod of which
it has said nothing, since this process is younger than the pod, what the API server had when it was last reached
counts as said.

1. A new address counts at once, and as long as the slice has another one.
2. Whether the pod is ready counts together with a new address; and while the API server is away, and after it is back
   until that makes no difference any more: it says that the pods of a node that was away are not ready until the
   kubelet has told it so. That is looked at SETTLE_S after it is back, and again until MAX_SETTLE_S after it: a kubelet
   that has told nothing by then is dead.
3. A pod that is not ready, and has no address, keeps the one in the slice: nobody is led to it.
4. An endpoint that is being ended stays as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping

from edge_agent.autonomy.asks import NODE
from edge_agent.autonomy.kept.feed import Feed
from tunnel.kubeapi.encoding import decode
from tunnel.kubeapi.endpoint_slices import LocalPod, publishes_unready, with_local_pods
from tunnel.kubeapi.replica import Item
from tunnel.kubeapi.status import Json

GROUP, RESOURCE = "discovery.k8s.io", "endpointslices"
SERVICE_LABEL = "kubernetes.io/service-name"
"""The label of a slice that names its Service (k8s.io/api v0.34 `discovery/v1/well_known_labels.go`)."""
SETTLE_S = 30.0
"""Seconds after which the cloud is believed again at the earliest: the kubelet tells it of changes at once, and of all
within ten.
"""
MAX_SETTLE_S = 300.0
"""Seconds after which it is believed in any case."""
MAX_PODS = 1000
"""How many pods are remembered; a node has 110 by default."""


class LocalEndpoints:
    """What the kubelet said of pods."""

    def __init__(self, feeds: Callable[[], Iterable[Feed]]) -> None:
        """`feeds` returns all scopes."""
        self._feeds = feeds
        self._pods: dict[str, LocalPod] = {}
        self._settled: asyncio.TimerHandle | None = None
        self._back_s = 0.0
        """When the API server was back, on the loop's clock."""
        self._believes = False
        """Whether the cloud is believed on what is ready."""

    def said(self, uid: str, status: Json, patch: Json | None = None) -> None:
        """Takes the status of a pod, as the kubelet tells it.

        Args:
            uid: the pod's.
            status: all of it.
            patch: what the kubelet has said of it, where the rest is the API server's own; None: it has said all.
        """
        known = self._pods.get(uid)
        is_ready = _is_ready(status)
        if patch is not None and known is not None and not _tells_ready(patch):
            is_ready = known.is_ready
        self._take(uid, LocalPod(_addresses(status), is_ready, overrides=not self._believes))

    def restored(self) -> None:
        """Takes that all that was on the disk is shown."""
        self._learn()

    def turned(self, *, is_up: bool) -> None:
        """Takes that the API server is away, or back."""
        if self._settled is not None:
            self._settled.cancel()
            self._settled = None
        if is_up:
            loop = asyncio.get_running_loop()
            self._back_s = loop.time()
            self._settled = loop.call_later(SETTLE_S, self._settle)
            return
        self._learn()
        if self._believes:
            self._believe(is_believed=False)

    def close(self) -> None:
        """Forgets what is due."""
        if self._settled is not None:
            self._settled.cancel()

    def view(self, feed: Feed) -> Callable[[Item], Item] | None:
        """Returns how objects of a scope are shown; None where they are shown as they come."""
        return (lambda item: self._shown(item, feed, self._pods)) if _has_slices(feed) else None

    # Internal

    def _shown(self, item: Item, feed: Feed, pods: Mapping[str, LocalPod]) -> Item:
        if not pods:
            return item
        codec = feed.scope.codec
        try:
            raw = with_local_pods(item.raw, codec, pods)
            if raw is not item.raw and self._publishes_unready(item):
                raw = with_local_pods(item.raw, codec, pods, publishes_unready=True)
        except ValueError:
            return item
        return item if raw == item.raw else item._replace(raw=raw)

    def _publishes_unready(self, item: Item) -> bool:
        """Returns whether the Service of a slice leads to pods that are not ready as well."""
        key = (item.metadata.namespace, item.metadata.labels.get(SERVICE_LABEL, ""))
        for feed in self._feeds():
            if (feed.scope.group, feed.scope.resource) == ("", "services"):
                service = feed.replica.get(key)
                if service is not None:
                    return publishes_unready(service.raw, feed.scope.codec)
        return False

    def _take(self, uid: str, pod: LocalPod) -> None:
        if self._pods.get(uid) == pod:
            return
        self._pods.pop(uid, None)
        self._pods[uid] = pod
        while len(self._pods) > MAX_PODS:
            del self._pods[next(iter(self._pods))]
        self._refresh(uid.encode())

    def _learn(self) -> None:
        """Takes the pods of the node of which the kubelet has said nothing to this process, as they are shown."""
        for feed in self._feeds():
            if (feed.scope.who, feed.scope.group, feed.scope.resource, feed.scope.encoding) != (
                NODE,
                "",
                "pods",
                "json",
            ):
                continue
            for uid, status in _statuses(feed):
                if uid not in self._pods and len(self._pods) < MAX_PODS:
                    self._pods[uid] = LocalPod(_addresses(status), _is_ready(status), overrides=not self._believes)

    def _settle(self) -> None:
        self._settled = None
        loop = asyncio.get_running_loop()
        if self._differs() and loop.time() - self._back_s < MAX_SETTLE_S:
            self._settled = loop.call_later(SETTLE_S, self._settle)
            return
        self._believe(is_believed=True)

    def _differs(self) -> bool:
        """Returns whether slices would be shown otherwise if the cloud were believed."""
        believed = {uid: pod._replace(overrides=False) for uid, pod in self._pods.items()}
        return any(
            self._shown(came, feed, believed).raw != self._shown(came, feed, self._pods).raw
            for feed in self._feeds()
            if _has_slices(feed)
            for came in feed.altered
        )

    def _believe(self, *, is_believed: bool) -> None:
        self._believes = is_believed
        self._pods = {uid: pod._replace(overrides=not is_believed) for uid, pod in self._pods.items()}
        self._refresh()

    def _refresh(self, mention: bytes = b"") -> None:
        for feed in self._feeds():
            feed.show_anew(mention)


# Internal


def _has_slices(feed: Feed) -> bool:
    return (feed.scope.group, feed.scope.resource) == (GROUP, RESOURCE)


def _statuses(feed: Feed) -> Iterator[tuple[str, Json]]:
    """Yields the uid and the status of each pod of a scope."""
    for item in feed.replica.items(lambda _: True):
        pod = decode(item.raw)
        if isinstance(pod, dict) and isinstance(pod.get("status"), dict):
            yield item.metadata.uid, pod["status"]


def _addresses(status: Json) -> tuple[str, ...]:
    return tuple(str(one.get("ip")) for one in _objects(status.get("podIPs")))


def _is_ready(status: Json) -> bool:
    return any(one.get("type") == "Ready" and one.get("status") == "True" for one in _objects(status.get("conditions")))


def _tells_ready(patch: Json) -> bool:
    """Returns whether a patch says whether the pod is ready."""
    status = patch.get("status")
    conditions = _objects(status.get("conditions")) if isinstance(status, dict) else []
    return any(one.get("type") == "Ready" and "status" in one for one in conditions)


def _objects(value: object) -> list[Json]:
    """Returns the objects of a list; none where there is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
