"""The fleet API with the kubectls that people have: each minor version from the first that speaks WebSocket."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.e2e.kubectls import kubectl_of
from tests.support.site import Site
from tests.support.tunnel import BOX

VERSIONS = ["1.31", "1.32", "1.33", "1.34", "1.35", "1.36"]
"""All other tests run with the newest."""


@pytest.fixture(scope="module", params=VERSIONS)
def user(request: pytest.FixtureRequest, shared: Site) -> Iterator[Site]:
    """The shared site, by way of one of the versions."""
    program = kubectl_of(request.param)
    shared.program = program
    assert f"v{request.param}." in shared.kubectl("version", "--client")
    yield shared
    shared.program = None


def test_get_and_describe(user: Site) -> None:
    assert BOX in user.kubectl("get", "nodes")
    assert user.kubectl("get", "node", BOX, "-o", "jsonpath={.status.nodeInfo.kernelVersion}") == os.uname().release
    assert "2/2" in user.kubectl("get", "pods", "-o", "wide")
    assert BOX in user.kubectl("describe", "node", BOX)
    assert BOX in user.kubectl("describe", "pod", BOX)
    assert user.kubectl("auth", "can-i", "create", "pods/exec").strip() == "yes"


def test_exec_with_streams_and_exit_code(user: Site) -> None:
    content = os.urandom(1_000_000)
    done = user.run_kubectl("exec", "-i", BOX, "--", "sh", "-c", "cat; echo err >&2; exit 42", stdin=content)
    assert done.returncode == 42
    assert done.stdout == content
    assert done.stderr.startswith(b"err\n")


def test_a_shell_on_a_terminal(user: Site) -> None:
    with user.shell("exec", "-it", BOX, "--", "sh", size=(30, 101)) as shell:
        shell.type("stty size\n")
        shell.expect("30 101")
        shell.type("exit 7\n")
        assert shell.wait() == 7


def test_logs(user: Site) -> None:
    assert user.kubectl("logs", BOX, "-c", "app.log") == user.log.read_text()
    with user.follow("logs", "-f", BOX, "-c", "app.log", "--tail", "1") as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == user.log.read_text().splitlines(keepends=True)[-1]
        with user.log.open("a") as log:
            log.write("one more line\n")
        assert follower.stdout.readline() == "one more line\n"


def test_cp_both_ways(user: Site) -> None:
    content = os.urandom(5_000_000)
    (user.folder / "there.bin").write_bytes(content)
    away = user.folder / "away.bin"
    user.kubectl("cp", "there.bin", f"{BOX}:{away}")
    assert away.read_bytes() == content
    user.kubectl("cp", f"{BOX}:{away}", "back.bin")
    assert (user.folder / "back.bin").read_bytes() == content
