"""Indexes what a cluster's objects say of names and addresses: whose node, whose pods, whose service."""

from __future__ import annotations

import ipaddress
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator
from collections.abc import Set as AbstractSet

from cloud_server.kubernetes.objects import (
    Address,
    Endpoint,
    EndpointSlice,
    Key,
    KubernetesObject,
    Network,
    Node,
    Pod,
    Service,
    as_address,
)
from cloud_server.routing.found_by import FoundBy

Kind = type[KubernetesObject]


class ClusterIndex:
    """The index of nodes, services, endpoints and pods by what a dial may name. Empty until the cluster was read."""

    def __init__(self) -> None:
        self._objects: dict[Kind, dict[Key, KubernetesObject]] = defaultdict(dict)
        self._found_by: dict[Kind, FoundBy] = defaultdict(FoundBy)
        self._prefixes: Counter[tuple[int, int]] = Counter()
        """How many nodes have a pod network of each IP version and prefix length."""
        self._not_permitted: set[Kind] = set()

    # Public - what is there

    def nodes_by_host(self, host: str) -> list[Node]:
        """Returns the nodes with this name, or with this host name among their addresses."""
        return self._nodes(host.lower())

    def nodes_by_address(self, address: Address) -> list[Node]:
        """Returns the nodes with this address: several, when sites use the same addresses."""
        return self._nodes(address)

    def pods_by_address(self, address: Address) -> list[Pod]:
        """Returns the pods with this address: several, when sites use the same addresses. One that is being deleted
        counts only when no other has the address: it may have been handed on.
        """
        found = [pod for key in self._found_by[Pod].get(address) if isinstance(pod := self._objects[Pod].get(key), Pod)]
        return [pod for pod in found if not pod.leaving] or found

    def endpoints_by_address(self, address: Address) -> list[tuple[EndpointSlice, Endpoint]]:
        """Returns the endpoints with this among their addresses, ready or not, each with its slice."""
        return [
            (one, endpoint)
            for key in self._found_by[EndpointSlice].get(address)
            if isinstance(one := self._objects[EndpointSlice].get(key), EndpointSlice)
            for endpoint in one.endpoints
            if address in map(as_address, endpoint.addresses)
        ]

    def may_read(self, kind: Kind) -> bool:
        """Returns whether the API lets us read a kind, as far as is known."""
        return kind not in self._not_permitted

    def nodes_by_network(self, address: Address) -> tuple[list[Node], int]:
        """Returns the nodes with the narrowest pod network around an address, and the length of its prefix; no nodes
        and 0 when there is none.
        """
        lengths = sorted((length for version, length in self._prefixes if version == address.version), reverse=True)
        for length in lengths:
            if nodes := self._nodes(ipaddress.ip_network((address, length), strict=False)):
                return nodes, length
        return [], 0

    def service_by_address(self, address: Address) -> Service | None:
        """Returns the service with this cluster IP; None when there is none."""
        for key in self._found_by[Service].get(address):
            return self.service(key)
        return None

    def service(self, key: Key) -> Service | None:
        """Returns a service by its name; None when there is none."""
        found = self._objects[Service].get(key)
        return found if isinstance(found, Service) else None

    def endpoints(self, service: Service, port: int) -> list[tuple[Endpoint, int]]:
        """Returns the endpoints behind a port of a service, each with its own port: those that are ready, and when none
        is, those that still serve while they end, as kube-proxy has it.
        """
        name = service.ports.get(port)
        if name is None:
            return []
        all_ = [
            (endpoint, one.ports[name])
            for key in self._found_by[EndpointSlice].get(service.key)
            if isinstance(one := self._objects[EndpointSlice].get(key), EndpointSlice) and name in one.ports
            for endpoint in one.endpoints
        ]
        return [one for one in all_ if one[0].ready] or [one for one in all_ if one[0].serving]

    # Public - keeping it up to date (kubernetes.follow.Index)

    def keep_only(self, kind: Kind, keys: AbstractSet[Key]) -> None:
        """Removes all objects of a kind but those with these keys, and notes that the kind may be read."""
        self._not_permitted.discard(kind)
        for key in self._objects[kind].keys() - keys:
            self.remove(kind, key)

    def not_permitted(self, kind: Kind) -> None:
        """Notes that a kind may not be read, for now; what is known of it stays."""
        self._not_permitted.add(kind)

    def put(self, one: KubernetesObject) -> None:
        """Stores an object that is new or different. Nothing is done for one that is the same: most news of a pod is of
        what is not kept here.
        """
        kind = type(one)
        if self._objects[kind].get(one.key) == one:
            return
        self.remove(kind, one.key)
        self._objects[kind][one.key] = one
        for name in _names(one):
            self._found_by[kind].add(name, one.key)
        self._prefixes.update(_prefixes(one))

    def remove(self, kind: Kind, key: Key) -> None:
        """Removes an object that is gone."""
        old = self._objects[kind].pop(key, None)
        if old is None:
            return
        for name in _names(old):
            self._found_by[kind].discard(name, key)
        for prefix in _prefixes(old):
            self._prefixes[prefix] -= 1
            if not self._prefixes[prefix]:
                del self._prefixes[prefix]

    # Internal

    def _nodes(self, name: Hashable) -> list[Node]:
        found = (self._objects[Node][key] for key in self._found_by[Node].get(name))
        return [node for node in found if isinstance(node, Node)]


def _names(one: KubernetesObject) -> Iterator[Hashable]:
    match one:
        case Node():
            yield from {one.key.name.lower(), *one.host_names, *one.addresses, *one.pod_networks}
        case Service():
            yield from one.addresses
        case EndpointSlice():
            addresses = (as_address(text) for each in one.endpoints for text in each.addresses)
            yield from {one.service, *(address for address in addresses if address is not None)}
        case Pod():
            yield from one.addresses


def _prefixes(one: KubernetesObject) -> Iterator[tuple[int, int]]:
    if isinstance(one, Node):
        networks: frozenset[Network] = one.pod_networks
        yield from ((network.version, network.prefixlen) for network in networks)
