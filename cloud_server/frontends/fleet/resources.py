"""The table of what the fleet API offers: discovery, routing and access reviews are all read from it."""

from __future__ import annotations

from dataclasses import dataclass

READ_VERBS = ("get", "list", "watch")
DEFAULT_NAMESPACE = "default"
LEASE_NAMESPACE = "kube-node-lease"
NAMESPACES = (DEFAULT_NAMESPACE, LEASE_NAMESPACE, "kube-system")
"""Namespaces that always exist, with or without pods in them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """One resource, or a subresource such as `pods/exec`."""

    group: str = ""
    """Empty for the core group."""
    version: str = "v1"
    name: str
    """Plural, as in a path."""
    kind: str
    singular: str = ""
    namespaced: bool = True
    verbs: tuple[str, ...] = READ_VERBS
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()

    @property
    def group_version(self) -> str:
        """`v1` or `group/v1`, as in `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def subresource(self) -> str:
        """`exec` of `pods/exec`, empty for a resource itself."""
        return self.name.partition("/")[2]


# A WebSocket upgrade is a GET and a SPDY upgrade a POST, hence both verbs.
_STREAM_VERBS = ("create", "get")

RESOURCES = (
    Resource(name="nodes", kind="Node", singular="node", namespaced=False, short_names=("no",)),
    Resource(name="pods", kind="Pod", singular="pod", short_names=("po",), categories=("all",)),
    Resource(name="pods/exec", kind="PodExecOptions", verbs=_STREAM_VERBS),
    Resource(name="pods/attach", kind="PodAttachOptions", verbs=_STREAM_VERBS),
    Resource(name="pods/portforward", kind="PodPortForwardOptions", verbs=_STREAM_VERBS),
    Resource(name="pods/log", kind="Pod", verbs=("get",)),
    Resource(name="namespaces", kind="Namespace", singular="namespace", namespaced=False, short_names=("ns",)),
    # There are none: these two are here because `kubectl describe` and `kubectl cluster-info` ask for them.
    Resource(name="events", kind="Event", singular="event", short_names=("ev",)),
    Resource(name="services", kind="Service", singular="service", short_names=("svc",)),
    Resource(group="events.k8s.io", name="events", kind="Event", singular="event", short_names=("ev",)),
    Resource(group="coordination.k8s.io", name="leases", kind="Lease", singular="lease", verbs=("get", "list")),
    Resource(
        group="authorization.k8s.io",
        name="selfsubjectaccessreviews",
        kind="SelfSubjectAccessReview",
        singular="selfsubjectaccessreview",
        namespaced=False,
        verbs=("create",),
    ),
    Resource(
        group="authorization.k8s.io",
        name="selfsubjectrulesreviews",
        kind="SelfSubjectRulesReview",
        singular="selfsubjectrulesreview",
        namespaced=False,
        verbs=("create",),
    ),
    Resource(
        group="authentication.k8s.io",
        name="selfsubjectreviews",
        kind="SelfSubjectReview",
        singular="selfsubjectreview",
        namespaced=False,
        verbs=("create",),
    ),
)

_BY_NAME = {(resource.group, resource.version, resource.name): resource for resource in RESOURCES}


def groups() -> list[str]:
    """The named API groups in their order."""
    return list(dict.fromkeys(resource.group for resource in RESOURCES if resource.group))


def find(group: str, version: str, name: str) -> Resource | None:
    """The resource of a path; `name` may be `pods/exec`."""
    return _BY_NAME.get((group, version, name))


def find_in_group(group: str, name: str) -> Resource | None:
    """The resource of an access review, which names no version."""
    return next((resource for resource in RESOURCES if resource.group == group and resource.name == name), None)
