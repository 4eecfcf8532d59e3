"""A node is led back to the API server, and through the proxy again."""

from __future__ import annotations

import pytest

from tests.e2e.cluster.autonomous import PORT, SITE, Edge
from tests.support.tunnel import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


def test_the_node_is_led_back_to_the_api_server(edge: Edge) -> None:
    before = edge.pod_ids()
    assert edge.autonomy("disable").count("again") == 2
    for path in edge.kubeconfigs:
        assert f"127.0.0.1:{PORT}" not in path.read_text()
        assert not path.with_name(f"{path.name}.before-longline").exists()
    edge.node.restart()
    edge.box.agent.kill()
    lease = ("get", "lease", "-n", "kube-node-lease", SITE, "-o", "jsonpath={.spec.renewTime}")
    seen = edge.kube.kubectl(*lease)
    wait_until(lambda: edge.kube.kubectl(*lease) != seen, "the kubelet renews its lease itself", 40)
    assert edge.pod_ids() == before
    edge.box.agent.start().wait_ready()
    edge.autonomy("enable")
    edge.node.restart()
    seen = edge.kube.kubectl(*lease)
    wait_until(lambda: edge.kube.kubectl(*lease) != seen, "the kubelet renews its lease through the proxy", 40)
    assert edge.connections()
