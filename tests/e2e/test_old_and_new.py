"""A box that was not updated yet at a server that was, and the other way round: everything works."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.old_build import missing_history, old_program
from tests.support.cluster import Box, Cluster, cluster
from tests.support.kubectl_user import KubectlUser
from tests.support.relay_process import RelayProcess
from tests.support.targets import TargetProcess
from tests.support.tunnel import BOX, exchange
from tests.support.waits import Deadline, scaled_s

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(bool(missing_history()), reason=missing_history())]
SERVICE = "printer"


@dataclass(kw_only=True)
class Mixed(KubectlUser):
    """A server and a box, of which one is of the old build."""

    old_agent: bool
    cluster: Cluster
    box: Box
    port: int
    """Echo, on the box."""
    forward: int
    """The server's port for it."""
    link: RelayProcess
    log: Path
    folder: Path
    kubeconfig: Path

    def ran(self, *command: str) -> list[dict[str, object]]:
        """The box's own records of a command."""
        lines = map(json.loads, self.box.agent.log_text().splitlines())
        return [record for record in lines if record.get("command") == list(command)]


@pytest.fixture(scope="module", params=["old agent", "old server"])
def mixed(request: pytest.FixtureRequest) -> Iterator[Mixed]:
    old_agent = request.param == "old agent"
    server = "cloud-server" if old_agent else old_program("cloud-server")
    agent = old_program("edge-agent") if old_agent else "edge-agent"
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(cluster(cloud_server=server))
        port = stack.enter_context(TargetProcess(["echo"])).ports["echo"]
        forward = made.forward(BOX, f"127.0.0.1:{port}")
        made.start()
        log = made.folder / "app.log"
        log.write_text("".join(f"line {number}\n" for number in range(1, 101)))
        link = stack.enter_context(RelayProcess(("127.0.0.1", made.tunnel_port)))
        box = made.join(
            BOX,
            address=link.address,
            allow=[f"127.0.0.1:{port}"],
            host={"exec": True, "user": pwd.getpwuid(os.geteuid()).pw_name, "files": [str(log)]},
            edge_agent=agent,
        )
        box.configure({"allow": [{"target": f"127.0.0.1:{port}", "service": SERVICE}]})
        made.start_box(BOX)
        yield Mixed(
            old_agent=old_agent, cluster=made, box=box, port=port, forward=forward, link=link, log=log,
            folder=made.folder, kubeconfig=made.kubeconfig(),
        )  # fmt: skip


def test_exec_with_streams_and_exit_code(mixed: Mixed) -> None:
    content = os.urandom(1_000_000)
    done = mixed.run_kubectl("exec", "-i", BOX, "--", "sh", "-c", "cat; echo err >&2; exit 42", stdin=content)
    assert (done.returncode, done.stdout, done.stderr[:4]) == (42, content, b"err\n")


def test_a_shell_on_a_terminal(mixed: Mixed) -> None:
    with mixed.shell("exec", "-it", BOX, "--", "sh", size=(30, 101)) as shell:
        shell.type("stty size\n")
        shell.expect("30 101")
        shell.type("exit 7\n")
        assert shell.wait() == 7


def test_logs_and_the_pod_that_the_box_shows(mixed: Mixed) -> None:
    assert mixed.kubectl("logs", BOX, "-c", "app.log") == mixed.log.read_text()
    assert "2/2" in mixed.kubectl("get", "pods")


def test_a_forward(mixed: Mixed) -> None:
    with socket.create_connection(("127.0.0.1", mixed.forward), timeout=scaled_s(10)) as sock:
        assert exchange(sock) == b"ping"


@pytest.mark.parametrize("service", [False, True])
def test_connect_by_port_and_by_name(mixed: Mixed, *, service: bool) -> None:
    for dial in (mixed.cluster.dial, mixed.cluster.dial_tls):
        with dial(f"{BOX}:{SERVICE if service else mixed.port}") as sock:
            assert exchange(sock) == b"ping"


def test_a_session_goes_on_over_a_new_link(mixed: Mixed) -> None:
    with mixed.cluster.dial(f"{BOX}:{mixed.port}") as sock:
        assert exchange(sock, b"before") == b"before"
        assert mixed.link.cut() == 1
        assert exchange(sock, b"behind") == b"behind"


def test_the_box_records_who_asked(mixed: Mixed) -> None:
    mixed.kubectl("exec", BOX, "--", "true")
    deadline = Deadline(10)
    while not (records := mixed.ran("true")):
        assert not deadline.passed(), mixed.box.agent.tail()
        time.sleep(0.02)
    (record, *_) = records
    assert "admin" in str(record.get("who") or record.get("user"))
