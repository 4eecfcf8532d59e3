"""What routing needs of a cluster's objects, as plain values that no Kubernetes library is in."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import NamedTuple

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


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


class Endpoint(NamedTuple):
    """A pod, or what stands for one, behind a service."""

    address: str
    """Of the pod network, or of a node for a pod that uses its network."""
    node: str | None
    """The node that it runs on; None when that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSlice:
    """A part of a service's endpoints."""

    key: Key
    service: Key
    ports: dict[str, int] = field(default_factory=dict)
    """By the name of the service's port, the TCP port of these endpoints."""
    ready: tuple[Endpoint, ...] = ()


KubernetesObject = Node | Service | EndpointSlice
