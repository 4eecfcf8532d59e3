"""A cluster that is all at a site, its API server on loopback there: a stock kubectl through the cloud server's proxy.

TLS and the client certificate are the site's own, from end to end.
"""

from __future__ import annotations

import concurrent.futures
import json
import os
import re
from collections.abc import Iterator

import pytest

from tests.e2e.cluster import requirements, workloads
from tests.e2e.cluster.site_cluster import POD, SITE, SiteCluster, site_cluster
from tests.e2e.kubectls import kubectl_of
from tests.support.port_forward import forwarding, get

# Only of the test itself: when Kubernetes has to be built first, that takes minutes.
pytestmark = pytest.mark.timeout(60, func_only=True)

SHELL = (POD, "-c", "shell")
VERSIONS = ["1.28", "1.31", "1.37"]
"""The oldest, the first that speaks WebSocket, and the newest."""


@pytest.fixture(scope="module")
def here() -> Iterator[SiteCluster]:
    if reason := requirements.missing():
        pytest.skip(reason)
    with site_cluster() as made:
        yield made


@pytest.fixture(scope="module", params=VERSIONS)
def user(request: pytest.FixtureRequest, here: SiteCluster) -> Iterator[SiteCluster]:
    """By way of one of the versions."""
    here.program = kubectl_of(request.param)
    yield here
    here.program = None


def test_who_asks_is_who_the_site_says(here: SiteCluster) -> None:
    assert here.kubectl("get", "nodes", "-o", "name") == f"node/{SITE}\n"
    who = json.loads(here.kubectl("auth", "whoami", "-o", "json"))
    assert who["status"]["userInfo"]["username"] == "admin"
    # And the cloud's record has the person behind the token.
    here.cluster.server.wait_for_log('"kind":"user","who":"ann"')


def test_it_is_not_reached_without_the_tunnel(here: SiteCluster) -> None:
    here.cluster.boxes[SITE].agent.kill()
    try:
        refused = here.run_kubectl("get", "--raw", "/version")
        assert refused.returncode == 1
        assert b"agent site-a is away" in refused.stderr
    finally:
        here.cluster.start_box(SITE)
    assert SITE in here.kubectl("get", "nodes")


def test_watch(user: SiteCluster) -> None:
    with user.follow("get", "pods", "--watch", "--no-headers") as watch:
        assert watch.stdout is not None
        assert watch.stdout.readline().split()[:2] == [POD, "3/3"]
        user.kubernetes.control.api.apply(workloads.pod("more", workloads.shell(), node=SITE))
        try:
            while (line := watch.stdout.readline()).split()[:3] != ["more", "1/1", "Running"]:
                assert line, "the watch ended"
        finally:
            user.kubectl("delete", "pod", "more")


def test_exec(user: SiteCluster) -> None:
    content = os.urandom(1_000_000)
    done = user.run_kubectl("exec", "-i", *SHELL, "--", "sh", "-c", "cat; echo err >&2; exit 42", stdin=content)
    assert (done.returncode, done.stdout) == (42, content), done.stderr
    assert done.stderr.startswith(b"err\n")


def test_exec_on_a_terminal(user: SiteCluster) -> None:
    with user.shell("exec", "-it", *SHELL, "--", "sh", size=(30, 101)) as shell:
        shell.type("stty size\n")
        shell.expect("30 101")
        shell.type("exit 7\n")
        assert shell.wait() == 7


@pytest.mark.parametrize("verb", [("logs", "-f", "--tail", "0"), ("attach",)], ids=["logs -f", "attach"])
def test_follow(user: SiteCluster, verb: tuple[str, ...]) -> None:
    with user.follow(*verb, POD, "-c", "counter") as follower:
        assert follower.stdout is not None
        lines = iter(follower.stdout.readline, "")
        first = next(int(found[1]) for line in lines if (found := re.match(r"line (\d+)$", line)))
        assert [next(lines) for _ in range(3)] == [f"line {first + more}\n" for more in (1, 2, 3)]


def test_cp(user: SiteCluster) -> None:
    content = os.urandom(20_000_000)
    (user.folder / "there").write_bytes(content)
    user.kubectl("cp", "there", f"{POD}:/tmp/it", "-c", "shell")
    user.kubectl("cp", f"{POD}:/tmp/it", "back", "-c", "shell")
    assert (user.folder / "back").read_bytes() == content


def test_port_forward(user: SiteCluster) -> None:
    with forwarding(user, POD) as port, concurrent.futures.ThreadPoolExecutor(20) as pool:
        pages = list(pool.map(lambda _: get(port), range(20)))
    assert pages == [b"hello from inside\n"] * 20


def test_proxy_of_a_pod(user: SiteCluster) -> None:
    path = f"/api/v1/namespaces/default/pods/{POD}:8080/proxy/"
    assert user.kubectl("get", "--raw", path) == "hello from inside\n"
