"""Serves `metrics.k8s.io`, which `kubectl top nodes` and `kubectl top pods` ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from cloud_server.agents.agents import AgentView
from cloud_server.frontends.fleet.causes import cause
from cloud_server.frontends.fleet.mirror import Mirror
from cloud_server.frontends.fleet.objects import timestamp
from cloud_server.frontends.fleet.pod_names import box_of, own_name
from cloud_server.frontends.fleet.routes import ResourceRequest
from cloud_server.frontends.fleet.sight import Sight
from cloud_server.frontends.fleet.usage import Sample, Usage, UsageReader
from tunnel.core.wire.faults import USAGE_UNKNOWN
from tunnel.kubeapi.negotiation import wants_table
from tunnel.kubeapi.selectors import parse
from tunnel.kubeapi.status import ApiError, Json, not_found
from tunnel.kubeapi.store import ObjectStore
from tunnel.kubeapi.tables import table


class MetricsApi:
    """The reads of NodeMetrics and PodMetrics."""

    def __init__(self, mirror: Mirror, store: ObjectStore, usage: UsageReader, clock: Callable[[], datetime]) -> None:
        self._mirror = mirror
        self._store = store
        self._usage = usage
        self._clock = clock

    # Public

    async def get(self, about: ResourceRequest, accept: str | None, sight: Sight) -> Json:
        """Returns the metrics of one node or pod, or a Table of one row.

        One that is hidden is treated as one that is not there.

        Raises:
            ApiError: there is no such one, it cannot be measured, or no form is accepted.
        """
        as_table = wants_table(accept)
        item = self._store.get(about.resource.name, (about.namespace, about.name))
        agent = self._agent_of(item) if item is not None else None
        if item is None or agent is None or not sight.shows(agent.name):
            raise not_found(about.resource.group, about.resource.name, about.name)
        usage: Usage | ApiError
        try:
            usage = await self._usage.read(agent)
        except ApiError as error:
            usage = error
        sight.renew()
        if not sight.shows(agent.name):  # not any more, and the error names the box
            raise not_found(about.resource.group, about.resource.name, about.name)
        if isinstance(usage, ApiError):
            raise usage
        found = _metrics(about, item, usage)
        if found is None:
            raise ApiError(
                404, f"agent {agent.name} does not say what pod {about.name} uses", cause=cause(USAGE_UNKNOWN)
            )
        return self._table(about, [found]) if as_table else found

    async def page(self, about: ResourceRequest, accept: str | None, sight: Sight) -> Json:
        """Returns the metrics of all nodes or pods that a list of these would hold, as far as they can be measured.

        Raises:
            ApiError: a bad selector, or no accepted form.
        """
        as_table = wants_table(accept)
        query = about.query
        selector = parse(about.resource.name, query.text("labelSelector"), query.text("fieldSelector"))
        items = self._store.items(about.resource.name, about.namespace or None)
        chosen = [(item, agent) for item in items if selector.matches(item) and (agent := self._agent_of(item))]
        chosen = [(item, agent) for item, agent in chosen if sight.shows(agent.name)]
        usages = await self._usage.read_all({agent.name: agent for _, agent in chosen}.values())
        sight.renew()  # boxes take their time, and what may be seen may be less by then
        measured = [
            (item, usages[agent.name]) for item, agent in chosen if agent.name in usages and sight.shows(agent.name)
        ]
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
        return self._mirror.view(box_of(metadata["namespace"], metadata["name"]))

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
    samples = usage.containers.get((metadata["namespace"], own_name(metadata["name"])))
    return {**common, "containers": list(_containers(samples.items()))} if samples else None


def _containers(samples: Iterable[tuple[str, Sample]]) -> Iterable[Json]:
    for name, sample in samples:
        yield {"name": name, "usage": _quantities(sample)}


def _quantities(sample: Sample) -> dict[str, str]:
    return {"cpu": f"{sample.nanocores}n", "memory": f"{sample.memory_bytes // 1024}Ki"}
