"""Holds what routing needs of a cluster's objects, as plain values that no Kubernetes library is in."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import NamedTuple

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def as_address(text: str) -> Address | None:
    """Returns the address that a text is; None for a host's name, or the "None" of a headless service."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


class Key(NamedTuple):
    """The namespace and name of an object, which tell it from all others of its kind."""

    namespace: str
    """The namespace; empty for an object that is in none."""
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What routing needs of a Node."""

    key: Key
    addresses: frozenset[Address] = frozenset()
    """The node's InternalIP and ExternalIP addresses."""
    host_names: frozenset[str] = frozenset()
    """The node's Hostname, InternalDNS and ExternalDNS, in lower case."""
    pod_networks: frozenset[Network] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What routing needs of a Service."""

    key: Key
    addresses: frozenset[Address] = frozenset()
    """The cluster IPs; none for a headless service."""
    ports: dict[int, str] = field(default_factory=dict)
    """The name of each TCP port, by its number; empty for the only port of a service."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A pod, or what stands for one, behind a service."""

    addresses: tuple[str, ...]
    """At least one address, of the pod network, or of a node for a pod that uses its network. A service leads to the
    first: the others have "no semantics", and kube-proxy does not look at them (Endpoint in the API's reference).
    """
    node: str | None = None
    """The name of the node that it is on; None when that is not known, as where somebody wrote the slice by hand."""
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
    """The TCP port of these endpoints, by the name of the service's port."""
    endpoints: tuple[Endpoint, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod that has neither succeeded nor failed: one that has keeps its address in its status, though it has it no
    more.
    """

    key: Key
    node: str
    """The name of the node that it is bound to; empty when it is bound to none."""
    addresses: tuple[Address, ...] = ()
    """Its address of each IP version. None before it has a network, and none of a pod that uses its node's network:
    that has the node's addresses.
    """
    leaving: bool = False
    """Whether it is being deleted. Its address may be another pod's already."""


KubernetesObject = Node | Service | EndpointSlice | Pod
