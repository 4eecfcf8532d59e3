from __future__ import annotations

import ipaddress

import pytest

from cloud_server.kubernetes.objects import Endpoint, Service
from cloud_server.routing.router import Router
from tests.cloud_server.routing.samples import (
    AGENTS,
    WEB,
    cluster,
    node,
    policy,
    refused,
    router,
    to,
    web,
)
from tunnel.core.wire.errors import Code
from tunnel.core.wire.target import TcpTarget


def test_an_agents_name_is_its_own_box() -> None:
    assert router().routes("Site-A:22") == to("site-a", "localhost", 22)


def test_an_agents_name_comes_before_everything_else() -> None:
    subject = router(
        policy("gateway", "site-a:*", "0.0.0.0/0:*", default=True, nodes="site-a"), index=cluster(node("site-a"))
    )
    assert subject.routes("site-a:22") == to("site-a", "localhost", 22)


def test_a_name_that_nobody_has() -> None:
    code, text = refused(router(), "ghost:22")
    assert code is Code.UNKNOWN_AGENT
    assert "ghost" in text


def test_a_node_by_its_host_name_leads_to_the_agent_on_it() -> None:
    subject = router(index=cluster(node("site-a", "10.0.0.2", host="a.example.com")))
    assert subject.routes("a.example.com:10250") == to("site-a", "localhost", 10250)


def test_a_node_without_an_agent_of_its_name() -> None:
    code, text = refused(router(index=cluster(node("n1.example.com", "10.0.0.2"))), "n1.example.com:10250")
    assert code is Code.UNKNOWN_AGENT
    assert "n1.example.com" in text
    assert "[[route]]" in text


def test_a_node_behind_another_agent_is_dialled_by_its_address() -> None:
    subject = router(
        policy("gateway", nodes="n1.example.com n2"),
        index=cluster(node("n1.example.com", "fd00::2", "10.0.0.2"), node("n2")),
    )
    assert subject.routes("n1.example.com:10250") == to("gateway", "10.0.0.2", 10250)
    assert subject.routes("n2:10250") == to("gateway", "localhost", 10250)


def test_two_nodes_with_one_host_name() -> None:
    subject = router(index=cluster(node("site-a", host="edge"), node("site-b", host="edge")))
    code, text = refused(subject, "edge:10250")
    assert code is Code.AMBIGUOUS
    assert "site-a and site-b" in text


def test_a_node_by_its_address() -> None:
    subject = router(index=cluster(node("site-a", "10.0.0.2"), node("site-b", "10.0.0.3", "fd00::3")))
    assert subject.routes("10.0.0.3:10250") == to("site-b", "10.0.0.3", 10250)
    assert subject.routes("[fd00::3]:10250") == to("site-b", "fd00::3", 10250)
    assert subject.routes("[::ffff:10.0.0.3]:10250") == to("site-b", "10.0.0.3", 10250)


def test_two_nodes_with_one_address_are_never_guessed_between() -> None:
    subject = router(
        policy("spare", default=True), index=cluster(node("site-a", "10.0.0.2"), node("site-b", "10.0.0.2"))
    )
    code, text = refused(subject, "10.0.0.2:10250")
    assert code is Code.AMBIGUOUS
    assert "site-a" in text
    assert "site-b" in text
    assert "--kubelet-preferred-address-types=Hostname" in text


def test_a_route_decides_between_nodes_with_one_address() -> None:
    index = cluster(node("site-a", "10.0.0.2"), node("site-b", "10.0.0.2"))
    subject = router(policy("site-b", "10.0.0.2:10250"), index=index)
    assert subject.routes("10.0.0.2:10250") == to("site-b", "10.0.0.2", 10250)
    assert refused(subject, "10.0.0.2:22")[0] is Code.AMBIGUOUS


def test_nodes_that_one_agent_reaches_may_share_an_address() -> None:
    index = cluster(node("n1", "10.0.0.2"), node("n2", "10.0.0.2"))
    assert router(policy("gateway", nodes="n1 n2"), index=index).routes("10.0.0.2:80") == to("gateway", "10.0.0.2", 80)


def test_a_pod_belongs_to_the_node_of_its_network() -> None:
    subject = router(
        index=cluster(node("site-a", "10.0.0.2", pods="10.244.1.0/24"), node("site-b", pods="10.244.2.0/24"))
    )
    assert subject.routes("10.244.2.9:8443") == to("site-b", "10.244.2.9", 8443)
    assert refused(subject, "10.244.3.9:8443")[0] is Code.UNKNOWN_AGENT


def test_the_narrowest_claim_wins() -> None:
    index = cluster(node("site-a", "10.0.0.2", pods="10.0.1.0/24"), node("site-b", pods="10.0.1.128/25"))
    subject = router(
        policy("gateway", "10.0.0.0/16:*"), policy("spare", "10.0.1.64/26:443", "10.0.1.128/25:8443"), index=index
    )
    assert subject.routes("10.0.0.9:443") == to("gateway", "10.0.0.9", 443)
    assert subject.routes("10.0.0.2:443") == to("site-a", "10.0.0.2", 443)
    assert subject.routes("10.0.1.9:443") == to("site-a", "10.0.1.9", 443)
    assert subject.routes("10.0.1.65:443") == to("spare", "10.0.1.65", 443)
    assert subject.routes("10.0.1.65:80") == to("site-a", "10.0.1.65", 80)
    assert subject.routes("10.0.1.129:443") == to("site-b", "10.0.1.129", 443)
    assert subject.routes("10.0.1.129:8443") == to("spare", "10.0.1.129", 8443)


def test_two_routes_that_are_as_narrow() -> None:
    subject = router(policy("site-a", "10.1.0.0/16:80"), policy("site-b", "10.1.0.0/16:80,443"))
    assert subject.routes("10.1.0.1:443") == to("site-b", "10.1.0.1", 443)
    code, text = refused(subject, "10.1.0.1:80")
    assert code is Code.AMBIGUOUS
    assert "[[route]] of site-a" in text


def test_a_route_by_name() -> None:
    subject = router(policy("site-a", "db.internal:5432"), policy("site-b", "web.internal:80"))
    assert subject.routes("DB.internal:5432") == to("site-a", "db.internal", 5432)
    assert refused(subject, "db.internal:80")[0] is Code.UNKNOWN_AGENT
    both = router(policy("site-a", "db.internal:5432"), policy("site-b", "db.internal:*"))
    assert refused(both, "db.internal:5432")[0] is Code.AMBIGUOUS


@pytest.mark.parametrize(
    "authority", ["10.96.0.7:443", "web.shop.svc:443", "web.shop.svc.cluster.local:443", "WEB.shop.svc.:443"]
)
def test_a_service_leads_to_a_pod_behind_it_on_its_own_node(authority: str) -> None:
    subject = router(index=cluster(WEB, web(Endpoint(("10.244.1.5",), "site-a"))))
    assert subject.routes(authority) == to("site-a", "10.244.1.5", 8443)


def test_a_service_comes_before_a_wide_route_and_behind_an_exact_one() -> None:
    index = cluster(WEB, web(Endpoint(("10.244.1.5",), "site-a")))
    wide, exact = policy("gateway", "10.96.0.0/12:*"), policy("gateway", "10.96.0.7:443")
    assert router(wide, index=index).routes("10.96.0.7:443") == to("site-a", "10.244.1.5", 8443)
    assert router(exact, index=index).routes("10.96.0.7:443") == to("gateway", "10.96.0.7", 443)


def test_all_endpoints_of_a_service_are_ways_there_connected_ones_first() -> None:
    index = cluster(
        WEB,
        web(
            Endpoint(("10.244.9.5",), "spare"),
            Endpoint(("10.244.1.5",), "site-a"),
            Endpoint(("10.244.7.5",), "no-agent-here"),
        ),
        web(Endpoint(("10.244.2.5",), "site-b"), name="web-2"),
    )
    assert router(index=index).routes("web.shop.svc:443") == [
        *to("site-a", "10.244.1.5", 8443),
        *to("site-b", "10.244.2.5", 8443),
        *to("spare", "10.244.9.5", 8443),
    ]


def test_a_service_without_endpoints_or_without_that_port() -> None:
    subject = router(index=cluster(WEB))
    code, text = refused(subject, "web.shop.svc:443")
    assert code is Code.UNREACHABLE
    assert text == "service shop/web has no ready endpoint"
    code, text = refused(subject, "10.96.0.7:22")
    assert code is Code.UNREACHABLE
    assert "no TCP port 22" in text


def test_a_service_on_nodes_without_an_agent() -> None:
    index = cluster(WEB, web(Endpoint(("10.244.1.5",), "n1"), Endpoint(("10.9.9.9",))))
    code, text = refused(router(index=index), "web.shop.svc:443")
    assert code is Code.UNKNOWN_AGENT
    assert "shop/web at 10.244.1.5, on node n1" in text
    assert router(policy("gateway", default=True), index=index).routes("web.shop.svc:443") == [
        *to("gateway", "10.244.1.5", 8443),
        *to("gateway", "10.9.9.9", 8443),
    ]


def test_a_service_without_ready_endpoints_leads_to_those_that_end() -> None:
    ending = Endpoint(("10.244.1.5",), "site-a", ready=False, serving=True)
    index = cluster(WEB, web(ending, Endpoint(("10.244.1.6",), "site-a", ready=False, serving=False)))
    assert router(index=index).routes("web.shop.svc:443") == to("site-a", "10.244.1.5", 8443)


def test_a_cluster_ip_leads_first_to_endpoints_of_its_own_ip_version() -> None:
    both = Service(key=WEB.key, addresses=WEB.addresses | {ipaddress.ip_address("fd00:96::7")}, ports=WEB.ports)
    index = cluster(
        both,
        web(Endpoint(("fd00:1::5",), "site-a"), name="web-6"),
        web(Endpoint(("10.244.1.5",), "site-a"), name="web-4"),
    )
    four, six = to("site-a", "10.244.1.5", 8443), to("site-a", "fd00:1::5", 8443)
    subject = Router(AGENTS, (), index)
    for _ in range(20):
        assert subject.routes("10.96.0.7:443") == four + six
        assert subject.routes("[fd00:96::7]:443") == six + four


def test_an_endpoint_that_two_slices_have_is_tried_once() -> None:
    one = Endpoint(("10.244.1.5",), "site-a")
    index = cluster(WEB, web(one), web(one, name="web-2"))
    assert router(index=index).routes("web.shop.svc:443") == to("site-a", "10.244.1.5", 8443)


def test_what_nobody_claims_goes_to_default_routes_connected_ones_first() -> None:
    subject = router(policy("spare", default=True), policy("gateway", default=True), policy("site-a", "10.1.0.0/16:*"))
    expected = [*to("gateway", "192.0.2.1", 443), *to("spare", "192.0.2.1", 443)]
    assert subject.routes("192.0.2.1:443") == expected
    assert [route.target for route in subject.routes("db.example.com:5432")] == [TcpTarget("db.example.com", 5432)] * 2


def test_dials_are_spread_over_what_is_as_good() -> None:
    subject = Router(AGENTS, [policy("site-a", default=True), policy("site-b", default=True)])
    assert {subject.routes("192.0.2.1:443")[0].agent for _ in range(100)} == {"site-a", "site-b"}
