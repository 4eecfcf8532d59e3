"""Serves `metrics.k8s.io`, which `kubectl top nodes` and `kubectl top pods` ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from cloud_server.agents.agents import AgentView
from cloud_server.frontends.fleet.causes import cause
from cloud_server.frontends.fleet.mirror import Mirror
from cloud_server.frontends.fleet.objects import timestamp
from cloud_server.frontends.fleet.routes import ResourceRequest
from cloud_server.frontends.fleet.tables import table
from cloud_server.frontends.fleet.usage import Sample, Usage, UsageReader
from tunnel.core.wire.faults import USAGE_UNKNOWN
from tunnel.kubeapi.negotiation import wants_table
from tunnel.kubeapi.selectors import parse
from tunnel.kubeapi.status import ApiError, Json, not_found
from tunnel.kubeapi.store import ObjectStore


class MetricsApi:
    """The reads of NodeMetrics and PodMetrics."""

    def __init__(self, mirror: Mirror, store: ObjectStore, usage: UsageReader, clock: Callable[[], datetime]) -> None:
        self._mirror = mirror
        self._store = store
        self._usage = usage
        self._clock = clock

    # Public

    async def get(self, about: ResourceRequest, accept: str | None) -> Json:
        """Returns the metrics of one node or pod, or a Table of one row.

        Raises:
            ApiError: there is no such one, it cannot be measured, or no form is accepted.
        """
        as_table = wants_table(accept)
        item = self._store.get(about.resource.name, (about.namespace, about.name))
        agent = self._agent_of(item) if item is not None else None
        if item is None or agent is None:
            raise not_found(about.resource.group, about.resource.name, about.name)
        found = _metrics(about, item, await self._usage.read(agent))
        if found is None:
            raise ApiError(
                404, f"agent {agent.name} does not say what pod {about.name} uses", cause=cause(USAGE_UNKNOWN)
            )
        return self._table(about, [found]) if as_table else found

    async def page(self, about: ResourceRequest, accept: str | None) -> Json:
        """Returns the metrics of all nodes or pods that a list of these would hold, as far as they can be measured.

        Raises:
            ApiError: a bad selector, or no accepted form.
        """
        as_table = wants_table(accept)
        query = about.query
        selector = parse(about.resource.name, query.text("labelSelector"), query.text("fieldSelector"))
        items = self._store.items(about.resource.name, about.namespace or None)
        chosen = [(item, agent) for item in items if selector.matches(item) and (agent := self._agent_of(item))]
        usages = await self._usage.read_all({agent.name: agent for _, agent in chosen}.values())
        measured = [(item, usages[agent.name]) for item, agent in chosen if agent.name in usages]
        found = [metrics for item, usage in measured if (metrics := _metrics(about, item, usage))]
        if as_table:
            return self._table(about, found)
        resource = about.resource
        return {"kind": f"{resource.kind}List", "apiVersion": resource.group_version, "metadata": {}, "items": found}

    # Internal

    def _agent_of(self, item: Json) -> AgentView | None:
        metadata = item["metadata"]
        if item["kind"] == "Node":
            return self._mirror.view(metadata["name"])
        return self._mirror.view(self._mirror.owner(metadata["namespace"], metadata["name"]) or "")

    def _table(self, about: ResourceRequest, found: list[Json]) -> Json:
        include = about.query.text("includeObject", "Metadata")
        return table(about.resource.kind, found, {}, self._clock(), include, True)


# Internal


def _metrics(about: ResourceRequest, item: Json, usage: Usage) -> Json | None:
    """Returns the metrics of a Node or Pod; None when its box does not measure it."""
    metadata = item["metadata"]
    kept = {name: metadata[name] for name in ("name", "namespace", "labels") if name in metadata}
    common: Json = {
        "kind": about.resource.kind,
        "apiVersion": about.resource.group_version,
        "metadata": {**kept, "creationTimestamp": timestamp(usage.at)},
        "timestamp": timestamp(usage.at),
        "window": f"{usage.window_s:.3f}s",
    }
    if item["kind"] == "Node":
        used = _quantities(usage.node)
        if usage.disk.capacity is not None and usage.disk.available is not None:
            used["ephemeral-storage"] = f"{max(usage.disk.capacity - usage.disk.available, 0) // 1024}Ki"
        return {**common, "usage": used}
    samples = usage.containers.get((metadata["namespace"], metadata["name"]))
    return {**common, "containers": list(_containers(samples.items()))} if samples else None


def _containers(samples: Iterable[tuple[str, Sample]]) -> Iterable[Json]:
    for name, sample in samples:
        yield {"name": name, "usage": _quantities(sample)}


def _quantities(sample: Sample) -> dict[str, str]:
    return {"cpu": f"{sample.nanocores}n", "memory": f"{sample.memory_bytes // 1024}Ki"}
