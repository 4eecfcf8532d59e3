"""Agents, a cluster's objects and a router among them, as the tests of routing want them."""

from __future__ import annotations

import ipaddress

import pytest

from cloud_server.kubernetes.objects import Endpoint, EndpointSlice, Key, KubernetesObject, Node, Pod, Service
from cloud_server.routing.claims import RoutePolicy
from cloud_server.routing.cluster import ClusterIndex
from cloud_server.routing.route import Route
from cloud_server.routing.router import Router
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.target import TcpTarget
from tunnel.core.wire.target_rule import TargetRule


class FakeAgents:
    """Agents by name, and whether they are connected."""

    def __init__(self, **connected: bool) -> None:
        self.connected = {name.replace("_", "-"): up for name, up in connected.items()}

    def is_known(self, name: str) -> bool:
        return name in self.connected

    def is_connected(self, name: str) -> bool:
        return self.connected.get(name, False)


AGENTS = FakeAgents(site_a=True, site_b=True, gateway=True, spare=False)


def node(name: str, *addresses: str, pods: str = "", host: str = "") -> Node:
    return Node(
        key=Key("", name),
        addresses=frozenset(map(ipaddress.ip_address, addresses)),
        host_names=frozenset({host} - {""}),
        pod_networks=frozenset(map(ipaddress.ip_network, filter(None, [pods]))),
    )


def pod(name: str, node: str, *addresses: str, leaving: bool = False) -> Pod:
    return Pod(key=Key("shop", name), node=node, addresses=tuple(map(ipaddress.ip_address, addresses)), leaving=leaving)


def cluster(*objects: KubernetesObject) -> ClusterIndex:
    index = ClusterIndex()
    for one in objects:
        index.put(one)
    return index


def policy(agent: str, *targets: str, nodes: str = "", default: bool = False) -> RoutePolicy:
    return RoutePolicy(
        agent=agent,
        nodes=frozenset(nodes.split()),
        targets=tuple(map(TargetRule.parse, targets)),
        default=default,
    )


def router(*policies: RoutePolicy, index: ClusterIndex | None = None) -> Router:
    return Router(AGENTS, policies, index, shuffle=lambda routes: None)


def to(agent: str, host: str, port: int) -> list[Route]:
    return [Route(agent, TcpTarget(host, port))]


def refused(subject: Router, authority: str) -> tuple[Code, str]:
    with pytest.raises(OpenRefused) as caught:
        subject.routes(authority)
    return caught.value.code, str(caught.value)


WEB = Service(
    key=Key("shop", "web"),
    addresses=frozenset({ipaddress.ip_address("10.96.0.7")}),
    ports={443: "https", 80: "http"},
)


def web(*endpoints: Endpoint, name: str = "web-1", **ports: int) -> EndpointSlice:
    return EndpointSlice(
        key=Key("shop", name), service=WEB.key, ports=ports or {"https": 8443, "http": 8080}, endpoints=endpoints
    )
