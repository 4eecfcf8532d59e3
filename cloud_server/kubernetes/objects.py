"""What routing needs of a cluster's objects, as plain values that no Kubernetes library is in."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import NamedTuple

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def as_address(text: str) -> Address | None:
    """The address that a text is; None for a host's name, or the "None" of a headless service."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


class Key(NamedTuple):
    """Names an object of a kind."""

    namespace: str
    """Empty for what is in none."""
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A Node."""

    key: Key
    addresses: frozenset[Address] = frozenset()
    """InternalIP and ExternalIP."""
    host_names: frozenset[str] = frozenset()
    """Hostname, InternalDNS and ExternalDNS, in lower case."""
    pod_networks: frozenset[Network] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A Service."""

    key: Key
    addresses: frozenset[Address] = frozenset()
    """Cluster IPs; none for a headless one."""
    ports: dict[int, str] = field(default_factory=dict)
    """The name of each TCP port; empty for the only one of a service."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A pod, or what stands for one, behind a service."""

    addresses: tuple[str, ...]
    """At least one; of the pod network, or of a node for a pod that uses its network. A service leads to the first: the
    others have "no semantics", and kube-proxy does not look at them (Endpoint in the API's reference)."""
    node: str | None = None
    """The node that it is on; None when that is not known, as where somebody wrote the slice by hand."""
    ready: bool = True
    serving: bool = True
    """Whether it still answers, ready or about to end: what a service has left when nothing of it is ready."""
    of_pod: bool = False
    """Whether a pod is behind it: then the pod itself, where it is known, says more, and sooner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSlice:
    """A part of a service's endpoints."""

    key: Key
    service: Key
    ports: dict[str, int] = field(default_factory=dict)
    """By the name of the service's port, the TCP port of these endpoints."""
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod that has neither succeeded nor failed: such a one keeps its address in its status, and has it no more."""

    key: Key
    node: str
    """The node that it is bound to."""
    addresses: tuple[Address, ...] = ()
    """Of each IP version; none before it has a network, and none of one that uses its node's: that has the node's."""
    leaving: bool = False
    """Whether it is being deleted. Its address may be another's already."""


KubernetesObject = Node | Service | EndpointSlice | Pod
