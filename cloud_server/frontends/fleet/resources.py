"""Holds the table of what the fleet API offers: discovery, routing, access reviews and schemas are all read from it."""

from __future__ import annotations

from dataclasses import dataclass

READ_VERBS = ("get", "list", "watch")
DEFAULT_NAMESPACE = "default"
LEASE_NAMESPACE = "kube-node-lease"
NAMESPACES = (DEFAULT_NAMESPACE, LEASE_NAMESPACE, "kube-system")
"""The namespaces that always exist, with or without pods in them."""
METRICS_GROUP = "metrics.k8s.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One resource, or a subresource such as `pods/exec`."""

    group: str = ""
    """The API group; empty for the core group."""
    version: str = "v1"
    name: str
    """The name in the plural, as in a path; with the subresource, if it is one."""
    kind: str
    singular: str = ""
    namespaced: bool = True
    verbs: tuple[str, ...] = READ_VERBS
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    origin: str = "nothing is written through it"
    """Where its objects come from, for people who try to write one."""

    @property
    def group_version(self) -> str:
        """Returns the group and version as in `apiVersion`: `v1` or `group/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def stored(self) -> str:
        """Returns the name that its objects are kept under. Of two groups with one name only the core's has any
        objects.
        """
        return f"{self.group}/{self.name}" if self.name == "events" and self.group else self.name

    @property
    def subresource(self) -> str:
        """Returns `exec` for `pods/exec`; empty for a resource itself."""
        return self.name.partition("/")[2]


# A WebSocket upgrade is a GET and a SPDY upgrade a POST, hence both verbs.
_STREAM_VERBS = ("create", "get")
_PODS_ORIGIN = "pods are what boxes offer, as each box's own edge-agent.toml says"
_NODES_ORIGIN = "nodes are the agents that joined, with the labels of their edge-agent.toml"
_NONE = "there are none: the fleet API runs no workloads"


def _empty(group: str, kind: str, *short_names: str, plural: str = "", everywhere: bool = True) -> Resource:
    """Returns a kind without any objects: clients that list a whole cluster ask for it, and take an error for a broken
    cluster.
    """
    singular = kind.lower()
    return Resource(
        group=group, name=plural or f"{singular}s", kind=kind, singular=singular, short_names=short_names,
        categories=("all",) if everywhere else (), origin=_NONE,
    )  # fmt: skip


def _review(group: str, kind: str, *, namespaced: bool = False) -> Resource:
    singular = kind.lower()
    return Resource(
        group=group, name=f"{singular}s", kind=kind, singular=singular, namespaced=namespaced, verbs=("create",)
    )


RESOURCES = (
    Resource(
        name="nodes", kind="Node", singular="node", namespaced=False, short_names=("no",), origin=_NODES_ORIGIN
    ),
    Resource(
        name="pods", kind="Pod", singular="pod", short_names=("po",), categories=("all",), origin=_PODS_ORIGIN
    ),
    Resource(name="pods/exec", kind="PodExecOptions", verbs=_STREAM_VERBS),
    Resource(name="pods/attach", kind="PodAttachOptions", verbs=_STREAM_VERBS),
    Resource(name="pods/portforward", kind="PodPortForwardOptions", verbs=_STREAM_VERBS),
    Resource(name="pods/log", kind="Pod", verbs=("get",)),
    Resource(
        name="namespaces", kind="Namespace", singular="namespace", namespaced=False, short_names=("ns",),
        origin="namespaces are those that pods of boxes are in",
    ),
    # `kubectl describe`, `cluster-info` and `cluster-info dump`, k9s and Headlamp ask for these.
    Resource(
        name="events", kind="Event", singular="event", short_names=("ev",),
        origin="events are what boxes tell of themselves",
    ),
    _empty("", "Service", "svc"),
    _empty("", "ReplicationController", "rc"),
    _empty("events.k8s.io", "Event", "ev", everywhere=False),
    _empty("apps", "DaemonSet", "ds"),
    _empty("apps", "Deployment", "deploy"),
    _empty("apps", "ReplicaSet", "rs"),
    _empty("apps", "StatefulSet", "sts"),
    _empty("batch", "CronJob", "cj"),
    _empty("batch", "Job"),
    Resource(
        group="coordination.k8s.io", name="leases", kind="Lease", singular="lease", verbs=("get", "list"),
        origin="a lease says when its agent was last heard of",
    ),
    Resource(
        group=METRICS_GROUP, version="v1beta1", name="nodes", kind="NodeMetrics", namespaced=False,
        verbs=("get", "list"), origin="boxes are measured when somebody asks",
    ),
    Resource(
        group=METRICS_GROUP, version="v1beta1", name="pods", kind="PodMetrics", verbs=("get", "list"),
        origin="boxes are measured when somebody asks",
    ),
    _review("authorization.k8s.io", "SelfSubjectAccessReview"),
    _review("authorization.k8s.io", "SelfSubjectRulesReview"),
    _review("authorization.k8s.io", "SubjectAccessReview"),
    _review("authorization.k8s.io", "LocalSubjectAccessReview", namespaced=True),
    _review("authentication.k8s.io", "SelfSubjectReview"),
)  # fmt: skip

_BY_NAME = {(resource.group, resource.version, resource.name): resource for resource in RESOURCES}


def groups() -> list[str]:
    """Returns the named API groups in their order."""
    return list(dict.fromkeys(resource.group for resource in RESOURCES if resource.group))


def find(group: str, version: str, name: str) -> Resource | None:
    """Returns the resource of a path; `name` may be `pods/exec`. None when there is no such resource."""
    return _BY_NAME.get((group, version, name))


def find_in_group(group: str, name: str) -> Resource | None:
    """Returns the resource of an access review, which names no version; None when there is no such resource."""
    return next((resource for resource in RESOURCES if resource.group == group and resource.name == name), None)
