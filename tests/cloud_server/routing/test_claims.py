from __future__ import annotations

import ipaddress

from cloud_server.kubernetes.objects import Key, Node, Pod
from cloud_server.routing.claims import MAX_LISTED, Claimants, Claims, RoutePolicy
from cloud_server.routing.cluster import ClusterIndex
from tunnel.core.wire.target_rule import TargetRule

ADDRESS = ipaddress.ip_address("10.88.1.2")


class FakeAgents:
    """Two that are up."""

    def is_known(self, name: str) -> bool:
        return name in ("site-a", "site-b")

    def is_connected(self, name: str) -> bool:
        return True


def claimants(*objects: Node | Pod, targets: str = "") -> Claimants:
    index = ClusterIndex()
    for one in objects:
        index.put(one)
    rules = tuple(map(TargetRule.parse, targets.split()))
    return Claimants(FakeAgents(), [RoutePolicy(agent="gateway", nodes=frozenset({"n1"}), targets=rules)], index)


def test_only_the_narrowest_claims_count() -> None:
    claims = Claims()
    claims.add(16, "site-a", "wide")
    claims.add(24, "site-b", "narrow", of_pod=True)
    claims.add(16, "site-c", "wide too")
    claims.add(24, None, "as narrow")
    assert (claims.narrowness, claims.agents, claims.of_pods) == (24, {"site-b", None}, True)
    assert claims.listed() == "as narrow and narrow"
    claims.add(32, "site-d", "whole")
    assert (claims.agents, claims.of_pods) == ({"site-d"}, False)


def test_a_list_for_people_ends() -> None:
    claims = Claims()
    for number in range(MAX_LISTED + 2):
        claims.add(32, "site-a", f"claim {number}")
        claims.add(32, "site-b", f"claim {number}")
    assert claims.listed() == "claim 0 and claim 1 and claim 2 and 2 more"


def test_an_agent_has_the_nodes_of_its_route_and_the_one_of_its_name() -> None:
    one = claimants()
    assert [one.agent_for(name) for name in ("n1", "site-a", "n2")] == ["gateway", "site-a", None]


def test_a_node_without_an_agent_claims_no_address_but_a_pod_on_it_is_nobody_elses() -> None:
    n2 = Node(key=Key("", "n2"), addresses=frozenset({ADDRESS}))
    assert claimants(n2).of_holders(ADDRESS).agents == set()
    assert claimants(Pod(key=Key("shop", "one"), node="n2", addresses=(ADDRESS,))).of_holders(ADDRESS).agents == {None}


def test_a_pod_network_counts_when_it_is_narrower_than_the_route() -> None:
    pods = Node(key=Key("", "site-a"), pod_networks=frozenset({ipaddress.ip_network("10.88.1.0/24")}))
    for targets, agent in (("", "site-a"), ("10.88.0.0/16:*", "site-a"), ("10.88.1.0/24:*", "gateway")):
        one = claimants(pods, targets=targets)
        assert one.of_networks(ADDRESS, one.of_policies(ADDRESS, 80)).agents == {agent}
