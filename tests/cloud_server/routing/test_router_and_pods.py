"""The router where pods say more than nodes do: no podCIDR, the same addresses at two sites, slices made by hand."""

from __future__ import annotations

import pytest

from cloud_server.kubernetes.objects import Endpoint, EndpointSlice, Key, Pod
from tests.cloud_server.routing.samples import (
    WEB,
    cluster,
    node,
    pod,
    policy,
    refused,
    router,
    to,
    web,
)
from tunnel.core.wire.errors import Code


class TestWithoutPodNetworksInNodes:
    """What Calico, Cilium and others leave of a cluster: they hand out addresses themselves."""

    def test_a_pod_leads_to_its_node(self) -> None:
        index = cluster(node("site-a", "10.0.0.2"), pod("one", "site-a", "10.88.1.37", "fd00:88::37"))
        assert router(index=index).routes("10.88.1.37:8080") == to("site-a", "10.88.1.37", 8080)
        assert router(index=index).routes("[fd00:88::37]:8080") == to("site-a", "fd00:88::37", 8080)

    def test_a_pod_counts_more_than_the_pod_network_that_its_address_is_in(self) -> None:
        index = cluster(node("site-b", pods="10.244.1.0/24"), pod("one", "site-a", "10.244.1.7"))
        assert router(index=index).routes("10.244.1.7:80") == to("site-a", "10.244.1.7", 80)
        assert router(index=index).routes("10.244.1.8:80") == to("site-b", "10.244.1.8", 80)

    def test_a_pod_counts_more_than_a_wide_route_and_less_than_an_exact_one(self) -> None:
        index = cluster(pod("one", "site-a", "10.88.1.37"))
        wide, exact = policy("gateway", "10.88.0.0/16:*"), policy("gateway", "10.88.1.37:8080")
        assert router(wide, index=index).routes("10.88.1.37:8080") == to("site-a", "10.88.1.37", 8080)
        assert router(exact, index=index).routes("10.88.1.37:8080") == to("gateway", "10.88.1.37", 8080)

    @pytest.mark.parametrize("ready", [True, False])
    def test_an_endpoint_leads_to_its_node_by_each_of_its_addresses(self, ready: bool) -> None:
        endpoint = Endpoint(("10.88.1.37", "10.88.1.38"), "site-a", ready=ready, serving=False, of_pod=True)
        subject = router(index=cluster(WEB, web(endpoint)))
        for address in endpoint.addresses:
            assert subject.routes(f"{address}:8443") == to("site-a", address, 8443)

    def test_of_an_old_holder_and_a_new_one_the_new_one_has_the_address(self) -> None:
        stale = web(Endpoint(("10.88.1.37",), "site-a", of_pod=True))
        index = cluster(WEB, stale, pod("new", "site-b", "10.88.1.37"))
        assert router(index=index).routes("10.88.1.37:80") == to("site-b", "10.88.1.37", 80)
        index = cluster(pod("old", "site-a", "10.88.1.37", leaving=True), pod("new", "site-b", "10.88.1.37"))
        assert router(index=index).routes("10.88.1.37:80") == to("site-b", "10.88.1.37", 80)

    def test_a_pod_that_is_being_deleted_is_reached_as_long_as_no_other_has_its_address(self) -> None:
        index = cluster(pod("old", "site-a", "10.88.1.37", leaving=True))
        assert router(index=index).routes("10.88.1.37:80") == to("site-a", "10.88.1.37", 80)

    def test_what_uses_its_nodes_network_has_its_nodes_address(self) -> None:
        index = cluster(
            node("site-a", "10.0.0.2"), WEB, web(Endpoint(("10.0.0.2",), "site-a", of_pod=True)), pod("one", "site-a")
        )
        assert router(index=index).routes("10.0.0.2:9443") == to("site-a", "10.0.0.2", 9443)

    def test_pods_that_may_not_be_seen(self) -> None:
        index = cluster(WEB, web(Endpoint(("10.88.1.37",), "site-a", of_pod=True)))
        index.not_permitted(Pod)
        assert router(index=index).routes("10.88.1.37:8443") == to("site-a", "10.88.1.37", 8443)
        code, text = refused(router(index=index), "10.88.1.38:8443")
        assert code is Code.UNKNOWN_AGENT
        assert "the account may not list and watch them" in text
        index.keep_only(Pod, set())
        assert "may not" not in refused(router(index=index), "10.88.1.38:8443")[1]


class TestOverlappingPodNetworks:
    PODS = (pod("one", "site-a", "10.88.1.2"), pod("two", "site-b", "10.88.1.2"))

    def test_pods_of_two_sites_with_one_address_are_never_guessed_between(self) -> None:
        code, text = refused(router(policy("spare", default=True), index=cluster(*self.PODS)), "10.88.1.2:80")
        assert code is Code.AMBIGUOUS
        assert text.startswith("10.88.1.2 is a pod of node site-a and a pod of node site-b: ")
        assert "dial 10.88.1.2.site-a.longline:80, or a service of it by cluster IP or name" in text
        assert len(text) < 300
        assert router().routes("10.88.1.2.site-a.longline:80") == to("site-a", "10.88.1.2", 80)

    def test_the_advice_for_an_ipv6_address_is_a_name_too(self) -> None:
        index = cluster(pod("one", "site-a", "fd00::2"), pod("two", "site-b", "fd00::2"))
        assert "dial fd00--2.site-a.longline:80," in refused(router(index=index), "[fd00::2]:80")[1]
        assert router().routes("fd00--2.site-a.longline:80") == to("site-a", "fd00::2", 80)

    def test_a_thousand_of_them_make_no_longer_text(self) -> None:
        many = [pod(f"pod-{number}", "site-a" if number else "site-b", "10.88.1.2") for number in range(1000)]
        sites = [pod(f"more-{number}", f"n{number}", "10.88.1.2") for number in range(1000)]
        _, text = refused(router(index=cluster(*many, *sites)), "10.88.1.2:80")
        assert "and 999 more: dial" in text
        assert len(text) < 300

    def test_a_service_leads_to_the_node_that_its_endpoint_names(self) -> None:
        index = cluster(*self.PODS, WEB, web(Endpoint(("10.88.1.2",), "site-b", of_pod=True)))
        for authority in ("web.shop.svc:443", "10.96.0.7:443"):
            assert router(index=index).routes(authority) == to("site-b", "10.88.1.2", 8443)
        assert refused(router(index=index), "10.88.1.2:8443")[0] is Code.AMBIGUOUS

    def test_an_endpoint_that_somebody_wrote_is_as_good_as_a_pod(self) -> None:
        index = cluster(self.PODS[0], WEB, web(Endpoint(("10.88.1.2",), "site-b")))
        code, text = refused(router(index=index), "10.88.1.2:8443")
        assert code is Code.AMBIGUOUS
        assert "an endpoint of service shop/web on node site-b" in text
        of_none = EndpointSlice(
            key=Key("shop", "own"), service=Key("shop", ""), endpoints=(Endpoint(("10.88.1.2",), "site-b"),)
        )
        _, text = refused(router(index=cluster(self.PODS[0], of_none)), "10.88.1.2:8443")
        assert "an endpoint of endpointslice shop/own on node site-b" in text

    def test_a_pod_and_a_node_with_one_address(self) -> None:
        index = cluster(node("site-b", "10.88.1.2"), self.PODS[0])
        assert refused(router(index=index), "10.88.1.2:80")[0] is Code.AMBIGUOUS

    def test_pods_that_one_agent_reaches_may_share_an_address(self) -> None:
        index = cluster(pod("one", "n1", "10.88.1.2"), pod("two", "n2", "10.88.1.2"))
        assert router(policy("gateway", nodes="n1 n2"), index=index).routes("10.88.1.2:80") == to(
            "gateway", "10.88.1.2", 80
        )

    def test_an_exact_route_decides(self) -> None:
        subject = router(policy("site-b", "10.88.1.2:80"), index=cluster(*self.PODS))
        assert subject.routes("10.88.1.2:80") == to("site-b", "10.88.1.2", 80)


class TestPodsOfNodesWithoutAnAgent:
    INDEX = (node("site-b", pods="10.88.1.0/24"), pod("one", "n1", "10.88.1.2"))

    def test_nobody_elses_agent_is_asked(self) -> None:
        code, text = refused(router(index=cluster(*self.INDEX)), "10.88.1.2:80")
        assert code is Code.UNKNOWN_AGENT
        assert text.startswith("no agent for 10.88.1.2, a pod of node n1: join one with the node's name")

    def test_a_route_and_a_default_route_are(self) -> None:
        index = cluster(*self.INDEX)
        assert router(policy("spare", default=True), index=index).routes("10.88.1.2:80") == to("spare", "10.88.1.2", 80)
        wide = policy("gateway", "10.88.0.0/16:*")
        assert router(wide, policy("spare", default=True), index=index).routes("10.88.1.2:80") == to(
            "gateway", "10.88.1.2", 80
        )

    def test_one_makes_the_address_of_another_ambiguous(self) -> None:
        index = cluster(*self.INDEX, pod("two", "site-a", "10.88.1.2"))
        code, text = refused(router(policy("spare", default=True), index=index), "10.88.1.2:80")
        assert code is Code.AMBIGUOUS
        assert "a pod of node n1 and a pod of node site-a: dial 10.88.1.2.site-a.longline:80" in text


class TestEndpointsWithoutANode:
    """Slices that somebody wrote by hand, or that were mirrored from such Endpoints."""

    INDEX = (WEB, web(Endpoint(("10.9.9.9",))))

    def test_their_address_says_where(self) -> None:
        expected = to("site-a", "10.9.9.9", 8443)
        for holder in (
            node("site-a", "10.9.9.9"),
            pod("one", "site-a", "10.9.9.9"),
            node("site-a", pods="10.9.0.0/16"),
        ):
            assert router(index=cluster(*self.INDEX, holder)).routes("web.shop.svc:443") == expected
        for wide in ("10.9.0.0/16:*", "10.9.9.9:8443"):
            assert router(policy("site-a", wide), index=cluster(*self.INDEX)).routes("10.96.0.7:443") == expected

    def test_one_that_leads_nowhere_is_no_loss_to_the_others(self) -> None:
        index = cluster(WEB, web(Endpoint(("10.9.9.9",)), Endpoint(("10.244.1.5",), "site-a")))
        assert router(index=index).routes("web.shop.svc:443") == to("site-a", "10.244.1.5", 8443)
        code, text = refused(router(index=cluster(*self.INDEX)), "web.shop.svc:443")
        assert code is Code.UNKNOWN_AGENT
        assert "shop/web at 10.9.9.9" in text

    def test_two_claims_are_not_guessed_between(self) -> None:
        index = cluster(*self.INDEX, node("site-a", "10.9.9.9"), node("site-b", "10.9.9.9"))
        assert refused(router(index=index), "web.shop.svc:443")[0] is Code.AMBIGUOUS

    def test_a_name_is_one_of_a_route_and_never_an_agents(self) -> None:
        index = cluster(WEB, web(Endpoint(("db.internal",))), web(Endpoint(("site-b",)), name="web-2"))
        assert router(policy("site-a", "db.internal:8443"), index=index).routes("web.shop.svc:443") == to(
            "site-a", "db.internal", 8443
        )
        assert refused(router(index=index), "web.shop.svc:443")[0] is Code.UNKNOWN_AGENT
