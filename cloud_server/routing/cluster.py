"""What a cluster's objects say of names and addresses: whose node, whose pods, whose service."""

from __future__ import annotations

import ipaddress
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator

from cloud_server.kubernetes.objects import (
    Address,
    Endpoint,
    EndpointSlice,
    Key,
    KubernetesObject,
    Network,
    Node,
    Service,
)

Kind = type[KubernetesObject]


class ClusterIndex:
    """Nodes, services and endpoints by what a dial may name. Empty until the cluster was read."""

    def __init__(self) -> None:
        self._objects: dict[Kind, dict[Key, KubernetesObject]] = defaultdict(dict)
        self._found_by: dict[tuple[Kind, Hashable], set[Key]] = defaultdict(set)
        self._prefixes: Counter[tuple[int, int]] = Counter()
        """How many nodes have a pod network of this IP version and prefix length."""

    # Public - what is there

    def nodes_by_host(self, host: str) -> list[Node]:
        """Nodes with this name, or with this host name among their addresses."""
        return self._nodes(host.lower())

    def nodes_by_address(self, address: Address) -> list[Node]:
        """Nodes with this address: several, when sites use the same addresses."""
        return self._nodes(address)

    def nodes_by_pod(self, address: Address) -> tuple[list[Node], int]:
        """Nodes with the narrowest pod network around an address, and the length of its prefix."""
        lengths = sorted((length for version, length in self._prefixes if version == address.version), reverse=True)
        for length in lengths:
            if nodes := self._nodes(ipaddress.ip_network((address, length), strict=False)):
                return nodes, length
        return [], 0

    def service_by_address(self, address: Address) -> Service | None:
        """The service with this cluster IP."""
        for key in self._found_by.get((Service, address), ()):
            return self.service(key)
        return None

    def service(self, key: Key) -> Service | None:
        """A service by its name."""
        found = self._objects[Service].get(key)
        return found if isinstance(found, Service) else None

    def endpoints(self, service: Service, port: int) -> list[tuple[Endpoint, int]]:
        """The ready endpoints behind a port of a service, each with its own port."""
        name = service.ports.get(port)
        if name is None:
            return []
        return [
            (endpoint, one.ports[name])
            for key in sorted(self._found_by.get((EndpointSlice, service.key), ()))
            if isinstance(one := self._objects[EndpointSlice].get(key), EndpointSlice) and name in one.ports
            for endpoint in one.ready
        ]

    # Public - keeping it up to date (kubernetes.follow.Index)

    def replace(self, kind: Kind, objects: Iterable[KubernetesObject]) -> None:
        """These are all objects of a kind."""
        for key in [*self._objects[kind]]:
            self.remove(kind, key)
        for one in objects:
            self.put(one)

    def put(self, one: KubernetesObject) -> None:
        """An object is new or different."""
        kind = type(one)
        self.remove(kind, one.key)
        self._objects[kind][one.key] = one
        for name in _names(one):
            self._found_by[kind, name].add(one.key)
        self._prefixes.update(_prefixes(one))

    def remove(self, kind: Kind, key: Key) -> None:
        """An object is gone."""
        old = self._objects[kind].pop(key, None)
        if old is None:
            return
        for name in _names(old):
            keys = self._found_by[kind, name]
            keys.discard(key)
            if not keys:
                del self._found_by[kind, name]
        for prefix in _prefixes(old):
            self._prefixes[prefix] -= 1
            if not self._prefixes[prefix]:
                del self._prefixes[prefix]

    # Internal

    def _nodes(self, name: Hashable) -> list[Node]:
        found = (self._objects[Node][key] for key in sorted(self._found_by.get((Node, name), ())))
        return [node for node in found if isinstance(node, Node)]


def _names(one: KubernetesObject) -> Iterator[Hashable]:
    match one:
        case Node():
            yield from {one.key.name.lower(), *one.host_names, *one.addresses, *one.pod_networks}
        case Service():
            yield from one.addresses
        case EndpointSlice():
            yield one.service


def _prefixes(one: KubernetesObject) -> Iterator[tuple[int, int]]:
    if isinstance(one, Node):
        networks: frozenset[Network] = one.pod_networks
        yield from ((network.version, network.prefixlen) for network in networks)
