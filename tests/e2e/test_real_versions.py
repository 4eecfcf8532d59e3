"""The kubectls that people have, on a real Kubernetes through the tunnel: SPDY up to 1.29, WebSocket from 1.30 on."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.e2e.cluster.tunnelled import Tunnelled
from tests.e2e.kubectls import kubectl_of
from tests.support.kubectl_user import KubectlUser
from tests.support.port_forward import forwarding, get

pytestmark = pytest.mark.timeout(60, func_only=True)

VERSIONS = ["1.28", "1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]
POD = "app-site-a"
SHELL = (POD, "-c", "shell")


class VersionUser(KubectlUser):
    """Somebody with a kubectl of another version."""

    def __init__(self, other: KubectlUser, program: Path) -> None:
        self.folder, self.kubeconfig, self.program = other.folder, other.kubeconfig, program


@pytest.fixture(scope="module", params=VERSIONS)
def user(request: pytest.FixtureRequest, kube: Tunnelled) -> KubectlUser:
    made = VersionUser(kube, kubectl_of(request.param))
    assert f"v{request.param}." in made.kubectl("version", "--client")
    return made


def test_exec(user: KubectlUser) -> None:
    content = os.urandom(1_000_000)
    done = user.run_kubectl("exec", "-i", *SHELL, "--", "sh", "-c", "cat; echo err >&2; exit 42", stdin=content)
    assert (done.returncode, done.stdout) == (42, content)
    assert done.stderr.startswith(b"err\n")


def test_exec_on_a_terminal(user: KubectlUser) -> None:
    with user.shell("exec", "-it", *SHELL, "--", "sh", size=(30, 101)) as shell:
        # The size comes a moment behind the shell.
        shell.type("while [ \"$(stty size)\" != '30 101' ]; do sleep 0.1; done; echo s''ized\n")
        shell.expect("sized")
        shell.type("exit 7\n")
        assert shell.wait() == 7


@pytest.mark.parametrize("verb", [("logs", "-f", "--tail", "0"), ("attach",)], ids=["logs -f", "attach"])
def test_follow(user: KubectlUser, verb: tuple[str, ...]) -> None:
    with user.follow(*verb, POD, "-c", "counter") as follower:
        assert follower.stdout is not None
        lines = iter(follower.stdout.readline, "")
        first = next(int(found[1]) for line in lines if (found := re.match(r"line (\d+)$", line)))
        assert [next(lines) for _ in range(3)] == [f"line {first + more}\n" for more in (1, 2, 3)]


def test_cp(user: KubectlUser) -> None:
    content = os.urandom(5_000_000)
    (user.folder / "there").write_bytes(content)
    user.kubectl("cp", "there", f"{POD}:/tmp/it", "-c", "shell")
    user.kubectl("cp", f"{POD}:/tmp/it", "back", "-c", "shell")
    assert (user.folder / "back").read_bytes() == content


def test_port_forward(user: KubectlUser) -> None:
    with forwarding(user, POD) as port:
        assert get(port) == b"hello from site-a\n"


def test_proxies(user: KubectlUser) -> None:
    assert user.kubectl("get", "--raw", "/api/v1/nodes/site-a/proxy/healthz") == "ok"
    pod = f"/api/v1/namespaces/default/pods/{POD}:8080/proxy/"
    assert user.kubectl("get", "--raw", pod) == "hello from site-a\n"
