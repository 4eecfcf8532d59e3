"""The ways from kube-apiserver to a cloud server: konnectivity's protocol, and HTTP CONNECT over TLS.

The third, HTTP CONNECT on the unix socket, is the one of `test_real_cluster.py`. Each is an API server of its own in
the same cluster. And what a kubectl before 1.30 speaks, SPDY all the way.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import os
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import egress
from tests.e2e.cluster.kubernetes import SITES
from tests.e2e.cluster.tunnelled import Tunnelled
from tests.support.kubectl_user import KubectlUser
from tests.support.port_forward import forwarding, get

pytestmark = pytest.mark.timeout(90, func_only=True)

MIB = 1024 * 1024
SPDY = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}
"""What a kubectl before 1.30 speaks."""
RECORDED = {
    "konnectivity": '"frontend":"konnectivity"',
    "tls": f'"frontend":"connect","kind":"user","who":"{egress.USER}"',
    "spdy": '"frontend":"connect","kind":"local_process","who":"uid:0"',
}
"""The ways, and what the cloud server's audit records say of each."""
both = pytest.mark.parametrize("where", SITES)


class SpdyUser(KubectlUser):
    """Somebody with an old kubectl."""

    def __init__(self, other: KubectlUser) -> None:
        self.folder, self.kubeconfig = other.folder, other.kubeconfig

    @property
    def env(self) -> dict[str, str]:
        return {**super().env, **SPDY}


@pytest.fixture(scope="module", params=RECORDED)
def user(request: pytest.FixtureRequest, kube: Tunnelled) -> Iterator[KubectlUser]:
    cloud = kube.cluster
    if request.param == "spdy":
        yield SpdyUser(kube)
    elif request.param == "konnectivity":
        with kube.kubernetes.control.another_api("konnectivity", egress.grpc_over_unix(cloud)) as api:
            yield api
    else:
        way = egress.http_over_tls(cloud, cloud.folder / egress.USER)
        with kube.kubernetes.control.another_api("tls", way) as api:
            yield api


def test_it_is_that_way(user: KubectlUser, kube: Tunnelled, request: pytest.FixtureRequest) -> None:
    before = len(kube.cluster.server.log_text())
    user.kubectl("exec", "app-site-a", "-c", "shell", "--", "true")
    kube.cluster.server.wait_for_log(RECORDED[request.node.callspec.params["user"]], after=before)


@both
def test_exec(user: KubectlUser, where: str) -> None:
    ended = user.run_kubectl("exec", f"app-{where}", "-c", "shell", "--", "sh", "-c", "hostname; exit 42")
    assert (ended.returncode, ended.stdout) == (42, f"app-{where}\n".encode())


def test_stdin_and_stdout_are_whole(user: KubectlUser) -> None:
    content = os.urandom(5 * MIB)
    done = user.run_kubectl("exec", "-i", "app-site-b", "-c", "shell", "--", "cat", stdin=content)
    assert (done.returncode, done.stdout) == (0, content)


def test_a_shell_on_a_terminal(user: KubectlUser) -> None:
    with user.shell("exec", "-it", "app-site-a", "-c", "shell", "--", "sh", size=(30, 101)) as session:
        session.type("stty size\n")
        session.expect("30 101")
        session.type("exit 7\n")
        assert session.wait() == 7


@both
def test_logs(user: KubectlUser, where: str) -> None:
    with user.follow("logs", "-f", f"app-{where}", "-c", "counter", "--tail", "0") as follower:
        assert follower.stdout is not None
        numbers = [int(follower.stdout.readline().removeprefix("line ")) for _ in range(5)]
    assert numbers == list(range(numbers[0], numbers[0] + 5))


def test_copy(user: KubectlUser) -> None:
    content = os.urandom(20 * MIB)
    (user.folder / "there").write_bytes(content)
    user.kubectl("cp", "there", "app-site-a:/tmp/big", "-c", "shell")
    summed = user.kubectl("exec", "app-site-a", "-c", "shell", "--", "sha256sum", "/tmp/big").split()[0]
    assert summed == hashlib.sha256(content).hexdigest()
    user.kubectl("cp", "app-site-a:/tmp/big", "back", "-c", "shell")
    assert (user.folder / "back").read_bytes() == content


def test_port_forward(user: KubectlUser) -> None:
    with forwarding(user, "app-site-b") as port, concurrent.futures.ThreadPoolExecutor(20) as pool:
        pages = list(pool.map(lambda _: get(port), range(20)))
    assert pages == [b"hello from site-b\n"] * 20


@both
def test_proxies(user: KubectlUser, where: str) -> None:
    path = f"/api/v1/namespaces/default/pods/app-{where}:8080/proxy/"
    assert user.kubectl("get", "--raw", path) == f"hello from {where}\n"
    assert user.kubectl("get", "--raw", f"/api/v1/nodes/{where}/proxy/healthz") == "ok"
