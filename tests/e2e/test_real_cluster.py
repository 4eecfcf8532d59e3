"""A real Kubernetes with the tunnel as kube-apiserver's egress: a stock kubectl on nodes that nothing can reach."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import re

import pytest

from tests.e2e.cluster import site
from tests.e2e.cluster.api_server import OWN_SERVICE
from tests.e2e.cluster.kubernetes import SITES
from tests.e2e.cluster.tunnelled import Tunnelled
from tests.support.port_forward import forwarding, get
from tests.support.tunnel import wait_until

# Only of the test itself: when Kubernetes has to be built first, that takes minutes.
pytestmark = pytest.mark.timeout(90, func_only=True)

MIB = 1024 * 1024
both = pytest.mark.parametrize("where", SITES)


def shell(where: str) -> tuple[str, ...]:
    return (f"app-{where}", "-c", "shell")


class TestSites:
    def test_the_nodes_have_the_same_address(self, kube: Tunnelled) -> None:
        path = '{range .items[*]}{.metadata.name} {.status.addresses[?(@.type=="InternalIP")].address}{"\\n"}{end}'
        nodes = kube.kubectl("get", "nodes", "-o", f"jsonpath={path}").splitlines()
        assert nodes == [f"{name} {site.NODE_ADDRESS}" for name in SITES]

    @both
    def test_nothing_reaches_a_node_directly(self, kube: Tunnelled, where: str) -> None:
        # From its own router: from anywhere else there is not even a way.
        dial = f"import socket; socket.create_connection(('{site.NODE_ADDRESS}', 10250), 0.5)"
        with pytest.raises(Exception, match="timed out"):
            kube.kubernetes.routers[where].run("python3", "-c", dial)

    def test_services_work_inside_a_site(self, kube: Tunnelled) -> None:
        own = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "near", "namespace": "default"}}
        ports = [{"port": 80, "targetPort": 8080}]
        kube.kubernetes.control.api.apply({**own, "spec": {"selector": {"site": "site-b"}, "ports": ports}})
        try:
            address = kube.kubectl("get", "service", "near", "-o", "jsonpath={.spec.clusterIP}")
            ask = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 1 {address} 80"
            fetch = ("exec", *shell("site-b"), "--", "sh", "-c", ask)
            page = b"hello from site-b\n"
            wait_until(lambda: kube.run_kubectl(*fetch).stdout.endswith(page), "kube-proxy knows it", 20)
        finally:
            kube.kubectl("delete", "service", "near")
        # And the one of the API server, out through the router.
        kube.kubectl("exec", *shell("site-b"), "--", "sh", "-c", f"nc -w 5 {OWN_SERVICE} 443 </dev/null")


class TestExec:
    @both
    def test_output_and_exit_code(self, kube: Tunnelled, where: str) -> None:
        ended = kube.run_kubectl("exec", *shell(where), "--", "sh", "-c", "hostname; echo err >&2; exit 42")
        assert (ended.returncode, ended.stdout) == (42, f"app-{where}\n".encode())
        assert ended.stderr.startswith(b"err\n")

    @pytest.mark.parametrize("size", [0, 1, 5 * MIB])
    def test_stdin_and_stdout_are_whole(self, kube: Tunnelled, size: int) -> None:
        content = os.urandom(size)
        done = kube.run_kubectl("exec", "-i", *shell("site-a"), "--", "cat", stdin=content)
        assert (done.returncode, done.stdout) == (0, content)

    @both
    def test_a_shell_on_a_terminal(self, kube: Tunnelled, where: str) -> None:
        with kube.shell("exec", "-it", *shell(where), "--", "sh", size=(30, 101)) as session:
            session.type("while [ \"$(stty size)\" != '30 101' ]; do sleep 0.1; done; tty\n")
            session.expect(r"/dev/pts/\d+")
            session.resize(31, 99)
            session.type("while [ \"$(stty size)\" != '31 99' ]; do sleep 0.1; done; echo resi''zed\n")
            session.expect("resized")
            session.type("echo a''sleep; sleep 100\n")
            session.expect("asleep")
            session.type("\x03")
            session.expect(r"\^C")
            session.type("echo still $((20 + 22))\n")
            session.expect("still 42")
            session.type("exit 7\n")
            assert session.wait() == 7

    def test_a_command_that_is_not_there(self, kube: Tunnelled) -> None:
        missing = kube.run_kubectl("exec", *shell("site-a"), "--", "no-such-command")
        assert missing.returncode != 0
        assert b"no-such-command" in missing.stderr


class TestLogs:
    @both
    def test_follow(self, kube: Tunnelled, where: str) -> None:
        with kube.follow("logs", "-f", f"app-{where}", "-c", "counter", "--tail", "0") as follower:
            assert follower.stdout is not None
            numbers = [int(follower.stdout.readline().removeprefix("line ")) for _ in range(15)]
        assert numbers == list(range(numbers[0], numbers[0] + 15))

    def test_tail(self, kube: Tunnelled) -> None:
        lines = kube.kubectl("logs", "app-site-a", "-c", "counter", "--tail", "2").splitlines()
        first = int(lines[0].removeprefix("line "))
        assert lines == [f"line {first}", f"line {first + 1}"]


@both
def test_attach(kube: Tunnelled, where: str) -> None:
    with kube.follow("attach", f"app-{where}", "-c", "counter") as attached:
        assert attached.stdout is not None
        while not re.match(r"line \d+", line := attached.stdout.readline()):
            assert line, "attach ended"


@both
def test_copy_of_100_mb_both_ways(kube: Tunnelled, where: str) -> None:
    content = os.urandom(100_000_000)
    digest = hashlib.sha256(content).hexdigest()
    there, back = kube.folder / f"{where}.there", kube.folder / f"{where}.back"
    there.write_bytes(content)
    try:
        kube.kubectl("cp", there.name, f"app-{where}:/tmp/big", "-c", "shell")
        assert kube.kubectl("exec", *shell(where), "--", "sha256sum", "/tmp/big").split()[0] == digest
        kube.kubectl("cp", f"app-{where}:/tmp/big", back.name, "-c", "shell")
        assert hashlib.sha256(back.read_bytes()).hexdigest() == digest
    finally:
        kube.kubectl("exec", *shell(where), "--", "rm", "-f", "/tmp/big")
        for file in (there, back):
            file.unlink(missing_ok=True)


class TestPortForward:
    def test_50_mb(self, kube: Tunnelled) -> None:
        make = "head -c 50000000 /dev/urandom > /www/big; sha256sum /www/big"
        digest = kube.kubectl("exec", "app-site-a", "-c", "web", "--", "sh", "-c", make).split()[0]
        try:
            with forwarding(kube, "app-site-a") as port:
                content = get(port, "/big")
        finally:
            kube.kubectl("exec", "app-site-a", "-c", "web", "--", "rm", "/www/big")
        assert hashlib.sha256(content).hexdigest() == digest

    @both
    def test_50_connections_at_once(self, kube: Tunnelled, where: str) -> None:
        with forwarding(kube, f"app-{where}") as port, concurrent.futures.ThreadPoolExecutor(50) as pool:
            pages = list(pool.map(lambda _: get(port), range(50)))
        assert pages == [f"hello from {where}\n".encode()] * 50


class TestProxies:
    @both
    def test_of_a_node(self, kube: Tunnelled, where: str) -> None:
        assert kube.kubectl("get", "--raw", f"/api/v1/nodes/{where}/proxy/healthz") == "ok"
        pods = json.loads(kube.kubectl("get", "--raw", f"/api/v1/nodes/{where}/proxy/pods"))["items"]
        assert [pod["metadata"]["name"] for pod in pods] == [f"app-{where}"]

    @both
    def test_of_a_pod(self, kube: Tunnelled, where: str) -> None:
        path = f"/api/v1/namespaces/default/pods/app-{where}:8080/proxy/"
        assert kube.kubectl("get", "--raw", path) == f"hello from {where}\n"

    def test_of_a_service(self, kube: Tunnelled) -> None:
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "hello", "namespace": "default"},
            "spec": {"selector": {"app": "hello"}, "ports": [{"port": 80, "targetPort": 8080}]},
        }
        kube.kubernetes.control.api.apply(service)
        try:
            wait_until(lambda: self._seen(kube) == set(SITES), "the service leads to both sites", 20)
        finally:
            kube.kubectl("delete", "service", "hello")

    @staticmethod
    def _seen(kube: Tunnelled) -> set[str]:
        asked = [kube.run_kubectl("get", "--raw", "/api/v1/namespaces/default/services/hello/proxy/") for _ in range(6)]
        return {each.stdout.decode().removeprefix("hello from ").strip() for each in asked if each.returncode == 0}


def test_an_agent_that_is_away_and_comes_back(kube: Tunnelled) -> None:
    agent = kube.cluster.boxes["site-b"].agent
    agent.kill()
    try:
        refused = kube.run_kubectl("exec", *shell("site-b"), "--", "true", timeout_s=15)
        assert refused.returncode == 1
        assert re.search(rb"50[34].*site-b", refused.stderr), refused.stderr
        assert kube.kubectl("exec", *shell("site-a"), "--", "echo", "well") == "well\n"
    finally:
        kube.cluster.start_box("site-b")
    assert kube.kubectl("exec", *shell("site-b"), "--", "echo", "back") == "back\n"
