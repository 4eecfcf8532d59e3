"""A node whose certificate is over: its kubelet shows none, and neither loses its pods nor leaves them down."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.e2e.cluster import workloads
from tests.e2e.cluster.autonomous import SITE, Edge
from tests.support.agent_status import status_of
from tests.support.cgroup2 import needs_cgroup
from tests.support.tunnel import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400), needs_cgroup]
DAY = dt.timedelta(days=1)


def certificate(edge: Edge, ends_in: dt.timedelta) -> None:
    """The node has another certificate: the kubelet's, which the agent shows as well."""
    pki, user = edge.kube.control.pki, f"system:node:{SITE}"
    made = pki.issue("kubelet-client", user, group="system:nodes", into=edge.box.state, ends_in=ends_in)
    for path in made:
        shutil.copy(path, edge.node.home / path.name)


@contextlib.contextmanager
def rotating(edge: Edge) -> Iterator[None]:
    """The kubelet renews its certificate itself, so that it shows none once that is over."""
    config, kubeconfig = edge.node.home / "kubelet.yaml", edge.node.home / "kubelet.kubeconfig"
    before = [(path, path.read_text()) for path in (config, kubeconfig)]
    config.write_text(json.dumps({**json.loads(config.read_text()), "rotateCertificates": True}))
    content = yaml.safe_load(kubeconfig.read_text())
    content["users"][0]["user"] = {
        "client-certificate": "/run/node/kubelet-client.crt", "client-key": "/run/node/kubelet-client.key",
    }  # fmt: skip
    kubeconfig.write_text(yaml.safe_dump(content))
    try:
        yield
    finally:
        for path, text in before:
            path.write_text(text)
        certificate(edge, 9 * DAY)
        edge.node.restart()


def standing(edge: Edge) -> dict[str, Any]:
    return dict(status_of(edge.box)[1]["autonomy"])


def restarts(edge: Edge) -> int:
    """How often the pod's container has started again, as the node's proxy shows it."""
    return int(edge.pod("old")["status"]["containerStatuses"][0]["restartCount"])


def test_a_kubelet_without_a_certificate_keeps_its_pods_and_starts_them_again(edge: Edge) -> None:
    edge.kube.kubectl("create", "serviceaccount", "old")
    serve = "mkdir /www && wc -c < /token/token > /www/index.html && exec httpd -f -p 8080 -h /www"
    mount = {"name": "token", "mountPath": "/token"}
    pod = workloads.pod("old", workloads.container("web", "sh", "-c", serve, volumeMounts=[mount]), node=SITE)
    token = {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}}
    pod["spec"] |= {"serviceAccountName": "old", "volumes": [{"name": "token", "projected": {"sources": [token]}}]}
    edge.kube.control.api.apply(pod)
    edge.kube.kubectl("wait", "pod/old", "--for=condition=Ready", "--timeout=28s")
    before = edge.pod_ids()
    with rotating(edge):
        with edge.cut():
            certificate(edge, -DAY)
            edge.node.kubelet.kill()
            (crashed,) = [one for one in before if "old" in edge.node.ctr("containers", "info", one)
                          and "httpd" in edge.node.ctr("containers", "info", one)]  # fmt: skip
            edge.node.ctr("tasks", "kill", "--signal", "KILL", crashed)
            edge.node.kubelet.start()
            wait_until(lambda: edge.page("old").strip().isdigit(), "the pod runs again", 60)
            wait_until(lambda: not standing(edge)["reached"], "the cut is noticed", 15)
            wait_until(lambda: restarts(edge) == 1, "the kubelet says so", 20)
            assert edge.pod_ids() & before == before - {crashed}, "all others run on"
        # The API server is back, and refuses the node.
        wait_until(lambda: standing(edge)["node_refused_since"], "it is refused", 30)
        running = edge.pod_ids()
        edge.node.kubelet.kill()
        edge.node.kubelet.start()
        came = edge.connections()
        wait_until(lambda: len(edge.connections() - came) >= 1, "the kubelet comes", 30)
        assert "does not take" in edge.ask_head(f"/api/v1/nodes?fieldSelector=metadata.name%3D{SITE}&resourceVersion=0")
        assert edge.pod_ids() == running
        certificate(edge, 9 * DAY)
        wait_until(lambda: not standing(edge)["node_refused_since"], "the new certificate is taken", 30)
        wait_until(lambda: not any(standing(edge)["waiting"].values()), "the cloud was told", 60)
        assert edge.pod_ids() == running
    wait_until(edge.is_ready, "the node is ready again", 60)
