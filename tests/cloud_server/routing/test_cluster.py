from __future__ import annotations

import ipaddress

from cloud_server.kubernetes.objects import Endpoint, EndpointSlice, Key, Node, Pod, Service
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
    assert names(index.nodes_by_network(POD)[0]) == ["n1"]
    index.put(make_node("n1", B, "10.244.2.0/24"))
    assert names(index.nodes_by_address(A)) == []
    assert names(index.nodes_by_address(B)) == ["n1"]
    assert index.nodes_by_network(POD) == ([], 0)


def test_a_removed_node_is_not_found() -> None:
    index = ClusterIndex()
    index.put(make_node("n1", A, "10.244.1.0/24"))
    index.remove(Node, Key("", "n1"))
    index.remove(Node, Key("", "never-there"))
    assert names(index.nodes_by_address(A)) == []
    assert names(index.nodes_by_host("n1")) == []
    assert index.nodes_by_network(POD) == ([], 0)


def test_keeping_some_forgets_what_is_not_there_any_more_and_leaves_other_kinds() -> None:
    index = ClusterIndex()
    index.put(make_node("n1", A, "10.244.1.0/24"))
    index.put(Service(key=Key("shop", "web"), addresses=frozenset({B})))
    for new in (make_node("n2", A, "10.244.1.0/24"), make_node("n3", B, "10.244.3.0/24")):
        index.put(new)
    index.keep_only(Node, {Key("", "n2"), Key("", "n3")})
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
    nodes, length = index.nodes_by_network(POD)
    assert (names(nodes), length) == (["narrow"], 24)
    nodes, length = index.nodes_by_network(ipaddress.ip_address("fd00:1::7"))
    assert (names(nodes), length) == (["six"], 64)


def test_endpoints_are_those_of_the_ports_own_name() -> None:
    index = ClusterIndex()
    service = Service(key=Key("shop", "web"), ports={443: "https", 80: "http"})
    index.put(service)
    index.put(
        EndpointSlice(
            key=Key("shop", "web-1"),
            service=service.key,
            ports={"https": 8443},
            endpoints=(Endpoint(("10.244.1.5",), "n1"),),
        )
    )
    assert index.endpoints(service, 443) == [(Endpoint(("10.244.1.5",), "n1"), 8443)]
    assert index.endpoints(service, 80) == []
    assert index.endpoints(service, 22) == []
    index.remove(EndpointSlice, Key("shop", "web-1"))
    assert index.endpoints(service, 443) == []


def pod_keys(index: ClusterIndex) -> list[str]:
    return [pod.key.name for pod in index.pods_by_address(POD)]


def test_a_pod_is_found_by_what_it_has_now() -> None:
    index = ClusterIndex()
    index.put(Pod(key=Key("shop", "one"), node="n1"))
    assert pod_keys(index) == []
    index.put(Pod(key=Key("shop", "one"), node="n1", addresses=(POD, ipaddress.ip_address("fd00::5"))))
    assert pod_keys(index) == ["one"]
    index.put(Pod(key=Key("shop", "one"), node="n1", addresses=(POD,), leaving=True))
    index.put(Pod(key=Key("shop", "two"), node="n2", addresses=(POD,)))
    assert pod_keys(index) == ["two"]
    assert index.pods_by_address(ipaddress.ip_address("fd00::5")) == []
    index.remove(Pod, Key("shop", "two"))
    assert pod_keys(index) == ["one"]
    index.remove(Pod, Key("shop", "one"))
    assert pod_keys(index) == []


def test_an_endpoint_is_found_by_its_addresses_however_they_are_written() -> None:
    index = ClusterIndex()
    endpoints = (Endpoint(("10.244.1.5", "fd00:0:0::5"), "n1"), Endpoint(("db.internal",)))
    one = EndpointSlice(key=Key("shop", "web-1"), service=Key("shop", "web"), endpoints=endpoints)
    index.put(one)
    for address in (POD, ipaddress.ip_address("fd00::5")):
        assert index.endpoints_by_address(address) == [(one, endpoints[0])]
    index.remove(EndpointSlice, one.key)
    assert index.endpoints_by_address(POD) == []


def test_what_may_not_be_read_is_known_as_that_until_it_was() -> None:
    index = ClusterIndex()
    index.put(Pod(key=Key("shop", "one"), node="n1", addresses=(POD,)))
    index.put(make_node("n1", A, "10.244.1.0/24"))
    index.not_permitted(Pod)
    assert pod_keys(index) == ["one"]
    assert (index.may_read(Pod), index.may_read(Node)) == (False, True)
    assert names(index.nodes_by_address(A)) == ["n1"]
    index.keep_only(Pod, set())
    assert index.may_read(Pod)
