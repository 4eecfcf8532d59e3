"""Somebody at the node uses kubectl while the cloud is away: with a token of the box, by the box's own rules."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cluster import workloads
from tests.e2e.cluster.autonomous import SITE, Edge
from tests.support.agent_status import status_of
from tests.support.kubectl_user import KubectlUser
from tests.support.processes import BIN
from tests.support.tunnel import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


class Operator(KubectlUser):
    """Somebody on the node."""

    def __init__(self, edge: Edge, folder: Path) -> None:
        self.folder = folder
        self.kubeconfig = folder / "operator.kubeconfig"
        self.prefix = edge.node.namespaces.enter_network
        argv = [str(BIN / "edge-agent"), "autonomy", "kubeconfig", "--config", str(edge.box.config),
                "--user", "kim", "--to", str(self.kubeconfig)]  # fmt: skip
        done = subprocess.run([*self.prefix, *argv], capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"wrote {self.kubeconfig}, for kim, until ")

    def may_exec(self, pod: str) -> bool:
        """Whether a command runs, and has what is typed."""
        done = self.run_kubectl("exec", "-i", pod, "--", "sh", "-c", "id -u; cat", stdin=b"typed")
        return done.stdout == b"0\ntyped"

    def is_refused(self, *args: str) -> str:
        """What a kubectl says that does not end well."""
        done = self.run_kubectl(*args)
        assert done.returncode != 0, done
        return done.stderr.decode()


def allow(edge: Edge, *actions: str) -> None:
    """Let the operator do these, in the file that the agent follows."""
    edge.box.configure({"autonomy": {"operator": {"allow": list(actions)}}})


@pytest.fixture
def pod(edge: Edge) -> Iterator[str]:
    web = workloads.container("web", "sh", "-c", "echo it has begun && exec sleep 1000")
    edge.kube.control.api.apply(workloads.pod("seen", web, node=SITE))
    edge.kube.kubectl("wait", "pod/seen", "--for=condition=Ready", "--timeout=60s")
    yield "seen"
    edge.kube.kubectl("delete", "pod", "seen", "--grace-period=1", "--wait=false")


def test_the_operator_of_a_node_needs_no_cloud(edge: Edge, pod: str, tmp_path: Path) -> None:
    operator = Operator(edge, tmp_path)
    assert operator.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert SITE in operator.kubectl("get", "nodes"), "also while the cloud is there"
    with edge.cut():
        wait_until(lambda: not status_of(edge.box)[1]["autonomy"]["reached"], "the cut is noticed", 15)
        listed = operator.run_kubectl("get", "pods", "-A", "-o", "wide")
        assert b" seen " in listed.stdout
        assert b" Running " in listed.stdout
        assert b"the API server is not reached since" in listed.stderr
        assert json.loads(operator.kubectl("get", "pod", pod, "-o", "json"))["spec"]["nodeName"] == SITE
        assert "kubernetes" in operator.kubectl("get", "services")
        assert operator.kubectl("logs", pod) == "it has begun\n"
        for refused, words in (
            (("exec", pod, "--", "id"), '"exec" is not in allow'),
            (("get", "secrets"), '"secrets" is not in allow'),
            (("delete", "pod", pod, "--wait=false"), "the API server's alone"),
            (("get", "pods", "--as", "admin"), "act as somebody else"),
            (("get", "pods", "--token", "longline-operator-x.y"), "no token of the box's operator"),
        ):
            assert words in operator.is_refused(*refused)
        allow(edge, "read", "logs", "exec")
        try:
            wait_until(lambda: operator.may_exec(pod), "exec is allowed", 20)
        finally:
            allow(edge, "read", "logs")
    wait_until(edge.is_ready, "the node is ready again", 60)
    log = edge.box.agent.tail(2000)
    assert '"who":"kim"' in log
