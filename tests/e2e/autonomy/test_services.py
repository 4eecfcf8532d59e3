"""Services of a node that is cut off, boots without the cloud and comes back: kube-proxy and CoreDNS lead to its pods.

What makes that hard is in the cloud: it takes the pods of a node that is silent for not ready, and says so first when
it is back; and it does not know of the addresses that they have after a boot.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.cluster import coredns, workloads
from tests.e2e.cluster.autonomous import SITE, Edge
from tests.support.tunnel import wait_until
from tests.support.waits import Deadline, scaled_s

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]
PODS = ("first", "second")
LATER_S = 3
"""How much later the second pod is ready."""
RIGHT_S = 2.0
"""Seconds within which a Service leads to a pod that is ready."""
REQUESTS = 1000
TOLD_S = 9.0
"""Seconds within which the cloud has all that was said without it. A kubelet that finds a part missing says it again
each ten seconds.
"""


@pytest.fixture
def pair(edge: Edge) -> Iterator[Edge]:
    """A Service of two pods, and another without an address of its own; kube-proxy makes rules for iptables."""
    for name in PODS:
        probe = {"httpGet": {"port": 8080, "path": "/"}, "periodSeconds": 1,
                 "initialDelaySeconds": LATER_S * PODS.index(name)}  # fmt: skip
        # They have a share of the processor that nothing else takes from them.
        web = {**workloads.web(page=name), "readinessProbe": probe, "resources": {"requests": {"cpu": "500m"}}}
        edge.kube.control.api.apply(workloads.pod(name, web, node=SITE, labels={"app": "pair"}))
    for name, more in (("pair", {}), ("heads", {"clusterIP": "None"})):
        spec = {"selector": {"app": "pair"}, "ports": [{"port": 80, "targetPort": 8080}], **more}
        metadata = {"name": name, "namespace": "default"}
        edge.kube.control.api.apply({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec})
    wait_until(lambda: edge.resolve("heads") == set(addresses(edge)), "CoreDNS knows both pods", 60)
    wait_until(lambda: all(map(edge.leads_to, addresses(edge))), "the Service leads to both pods", 30)
    yield edge
    edge.node.proxy.kill()
    edge.node.set_proxy_mode("iptables")
    edge.node.proxy.start()


def test_services_lead_to_pods_through_a_cut_a_boot_and_the_return(pair: Edge) -> None:
    before = addresses(pair)
    address = pair.kube.kubectl("get", "service", "pair", "-o", "jsonpath={.spec.clusterIP}")
    assert pair.resolve("pair") == {address}
    with contextlib.ExitStack() as away:
        away.enter_context(pair.cut())
        with pair.asking("pair") as asked:
            wait_until(
                lambda: pair.endpoints("pair") == {(one, False) for one in before}, "the cloud gives the pods up", 40
            )
            wait_until(lambda: len(asked.answers()) > REQUESTS, "enough was asked", 40)
            assert asked.lost() == []
        pair.node.power_cut()
        pair.box.agent.kill()
        pair.node.set_proxy_mode("nftables")
        pair.box.agent.start()
        pair.node.boot()
        came_s = moments({
            "the first pod is ready": lambda: pair.is_up_again("first"),
            "the Service leads to it": lambda: pair.is_up_again("first") and pair.leads_to(addresses(pair)[0]),
        })  # fmt: skip
        with pair.asking("pair") as asked:
            came_s |= moments({
                "CoreDNS is ready": lambda: pair.is_up_again(coredns.NAME, coredns.NAMESPACE),
                "its name leads to it": lambda: leads_to_first(pair, before),
                "the second pod is ready": lambda: pair.is_up_again("second"),
                "their name leads to both": lambda: pair.resolve("heads") == set(addresses(pair)),
            })  # fmt: skip
            assert pair.resolve("pair") == {address}
            within(came_s, "the Service leads to it", "the first pod is ready")
            within(came_s, "its name leads to it", "the first pod is ready", "CoreDNS is ready")
            within(came_s, "their name leads to both", "the second pod is ready", "CoreDNS is ready")
            assert pair.endpoints("pair") == {(one, False) for one in before}
            back_s = time.monotonic()
            away.close()
            after = {(one, True) for one in addresses(pair)}
            wait_until(lambda: pair.endpoints("pair") == after, "the cloud knows of the pods", TOLD_S)
            print(f"the cloud knows {time.monotonic() - back_s:.1f} s later")
            wait_until(lambda: len(asked.answers(back_s)) > REQUESTS, "enough was asked", 40)
            assert asked.lost() == []
            assert {one.page for one in asked.answers(back_s)} == set(PODS)


# Internal


def within(came_s: dict[str, float], what: str, *after: str) -> None:
    """What happened must have happened soon after the last of what it needs."""
    took_s = came_s[what] - max(came_s[name] for name in after)
    print(f"{what} {took_s:.2f} s later")
    assert took_s < scaled_s(RIGHT_S), what


def moments(conditions: dict[str, Callable[[], bool]]) -> dict[str, float]:
    """When each of these was first seen to hold."""
    seen: dict[str, float] = {}
    deadline = Deadline(90)
    while len(seen) < len(conditions):
        assert not deadline.passed(), set(conditions) - set(seen)
        for name, holds in conditions.items():
            if name not in seen and holds():
                seen[name] = time.monotonic()
    return seen


def addresses(edge: Edge) -> list[str]:
    """Of both pods, as the node has them; empty texts for none."""
    return [edge.pod(name)["status"].get("podIP", "") for name in PODS]


def leads_to_first(edge: Edge, before: list[str]) -> bool:
    """Whether DNS has the address of the first pod, and none from before."""
    found = edge.resolve("heads")
    return addresses(edge)[0] in found and not found & set(before)
