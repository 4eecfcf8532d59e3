"""A node is led back to the API server, and through the proxy again."""

from __future__ import annotations

import pytest

from tests.e2e.cluster.autonomous import PORT, SITE, Edge
from tests.support.processes import command_result
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
    edge.made.start_box(SITE)
    edge.autonomy("enable")
    edge.node.restart()
    seen = edge.kube.kubectl(*lease)
    wait_until(lambda: edge.kube.kubectl(*lease) != seen, "the kubelet renews its lease through the proxy", 40)
    assert edge.connections()


def test_a_look_at_the_node_finds_its_components(edge: Edge) -> None:
    named = [word for path in edge.kubeconfigs for word in ("--kubeconfig", str(path))]
    argv = ["edge-agent", "autonomy", "check", "--config", str(edge.box.config), *named]
    done = command_result(*argv, prefix=edge.node.namespaces.enter_network, timeout_s=60)
    assert done.returncode == 0, done.stderr
    for path in edge.kubeconfigs:
        assert f"component: {path} leads through the proxy" in done.stdout
    assert f"address: the agent answers at 127.0.0.1:{PORT}" in done.stdout
    assert "pods must pull its image to start again" in done.stdout
