from __future__ import annotations

import ipaddress

from cloud_server.kubernetes.objects import Endpoint, EndpointSlice, Key, Node, Service
from cloud_server.routing.cluster import ClusterIndex

A = ipaddress.ip_address("10.0.0.2")
B = ipaddress.ip_address("10.0.0.3")
POD = ipaddress.ip_address("10.244.1.5")


def names(nodes: list[Node]) -> list[str]:
    return [node.key.name for node in nodes]


def make_node(name: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address, pods: str) -> Node:
    return Node(key=Key("", name), addresses=frozenset({address}), pod_networks=frozenset({ipaddress.ip_network(pods)}))


def test_a_changed_node_is_found_by_what_it_is_now() -> None:
    index = ClusterIndex()
    index.put(make_node("n1", A, "10.244.1.0/24"))
    assert names(index.nodes_by_address(A)) == ["n1"]
    assert names(index.nodes_by_pod(POD)[0]) == ["n1"]
    index.put(make_node("n1", B, "10.244.2.0/24"))
    assert names(index.nodes_by_address(A)) == []
    assert names(index.nodes_by_address(B)) == ["n1"]
    assert index.nodes_by_pod(POD) == ([], 0)


def test_a_removed_node_is_not_found() -> None:
    index = ClusterIndex()
    index.put(make_node("n1", A, "10.244.1.0/24"))
    index.remove(Node, Key("", "n1"))
    index.remove(Node, Key("", "never-there"))
    assert names(index.nodes_by_address(A)) == []
    assert names(index.nodes_by_host("n1")) == []
    assert index.nodes_by_pod(POD) == ([], 0)


def test_replacing_forgets_what_is_not_there_any_more_and_leaves_other_kinds() -> None:
    index = ClusterIndex()
    index.put(make_node("n1", A, "10.244.1.0/24"))
    index.put(Service(key=Key("shop", "web"), addresses=frozenset({B})))
    index.replace(Node, [make_node("n2", A, "10.244.1.0/24"), make_node("n3", B, "10.244.3.0/24")])
    assert names(index.nodes_by_address(A)) == ["n2"]
    assert names(index.nodes_by_host("n1")) == []
    found = index.service_by_address(B)
    assert found is not None
    assert found.key == Key("shop", "web")


def test_the_narrowest_pod_network_is_taken_in_each_family() -> None:
    index = ClusterIndex()
    index.put(make_node("wide", A, "10.244.0.0/16"))
    index.put(make_node("narrow", B, "10.244.1.0/24"))
    index.put(make_node("six", ipaddress.ip_address("fd00::2"), "fd00:1::/64"))
    nodes, length = index.nodes_by_pod(POD)
    assert (names(nodes), length) == (["narrow"], 24)
    nodes, length = index.nodes_by_pod(ipaddress.ip_address("fd00:1::7"))
    assert (names(nodes), length) == (["six"], 64)


def test_endpoints_are_those_of_the_ports_own_name() -> None:
    index = ClusterIndex()
    service = Service(key=Key("shop", "web"), ports={443: "https", 80: "http"})
    index.put(service)
    index.put(
        EndpointSlice(
            key=Key("shop", "web-1"), service=service.key, ports={"https": 8443}, ready=(Endpoint("10.244.1.5", "n1"),)
        )
    )
    assert index.endpoints(service, 443) == [(Endpoint("10.244.1.5", "n1"), 8443)]
    assert index.endpoints(service, 80) == []
    assert index.endpoints(service, 22) == []
    index.remove(EndpointSlice, Key("shop", "web-1"))
    assert index.endpoints(service, 443) == []
