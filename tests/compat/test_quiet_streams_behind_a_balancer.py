"""Quiet streams through a load balancer that ends what is silent for 50 s (HAProxy's usual time; kubernetes#94301).

All wait at the same time: a followed log and a watch by HTTP/2, an idle shell, agents' links with nothing open on them
beside a server that spares its pings, watches by HTTP/1.1 with every kubectl that people have, and two that the
balancer does end, or this test would show nothing.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config
from kubernetes import watch as kubernetes_watch
from urllib3.exceptions import ProtocolError

from tests.e2e.kubectls import kubectl_of
from tests.support.balancer import Balancer, balancer, missing_for_a_balancer
from tests.support.cluster import Cluster, cluster
from tests.support.kubeconfig_files import client_context
from tests.support.kubectl_user import KubectlUser
from tests.support.tunnel import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
IDLE_S = 50
SILENT_S = 72.0
"""More than the balancer's patience, and than the minute that others have."""
VERSIONS = ["1.28", "1.29", "1.30", "1.31", "1.32", "1.33", "1.34", "1.35", "1.36"]
OLD_HTTP = {"DISABLE_HTTP2": "true"}
"""client-go's own switch."""
WATCH = ("get", "nodes", "--watch-only", "--no-headers")
LOGS = ("logs", "-f", "box-7", "-c", "app.log", "--tail", "1")


@dataclass(kw_only=True)
class Operator(KubectlUser):
    """Somebody who comes by way of the balancer."""

    kubeconfig: Path
    folder: Path
    program: Path | None = None
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        return {**super().env, **self.extra}


@dataclass(kw_only=True)
class Rig:
    """A server behind a balancer, and two boxes that reach it only so."""

    cluster: Cluster
    balancer: Balancer
    kubeconfig: Path
    log: Path
    folder: Path

    def operator(self, extra: dict[str, str] | None = None, version: str = "") -> Operator:
        return Operator(
            kubeconfig=self.kubeconfig, folder=self.folder, extra=extra or {},
            program=kubectl_of(version) if version else None,
        )  # fmt: skip


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    if why := missing_for_a_balancer():
        pytest.skip(why)
    with cluster() as made, ExitStack() as stack:
        # As many links as there can be: each is asked as rarely as ever.
        made.configure({"tunnel": {"pings_per_s": 0.01}})
        made.start()
        behind = {"tunnel": made.tunnel_port, "fleet": made.fleet_port}
        before = stack.enter_context(balancer(made.folder, behind, IDLE_S))
        log = tmp_path / "app.log"
        log.write_text("first\n")
        me = pwd.getpwuid(os.geteuid()).pw_name
        for name in ("box-7", "box-8"):
            host = {"exec": True, "user": me, "files": [str(log)]}
            made.join(name, address=f"127.0.0.1:{before.ports['tunnel']}", host=host)
            made.start_box(name)
        config = yaml.safe_load(made.kubeconfig().read_text())
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{before.ports['fleet']}"
        kubeconfig = tmp_path / "balanced.kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(config))
        yield Rig(cluster=made, balancer=before, kubeconfig=kubeconfig, log=log, folder=tmp_path)


class PythonWatch(threading.Thread):
    """The official Python client, by HTTP/1.1."""

    def __init__(self, kubeconfig: Path) -> None:
        super().__init__(daemon=True)
        self.api: Any = kubernetes_client.CoreV1Api(kubernetes_config.new_client_from_config(str(kubeconfig)))  # type: ignore[no-untyped-call]
        self.events: list[tuple[str, str]] = []
        self.watch: Any = kubernetes_watch.Watch()  # type: ignore[no-untyped-call]

    def run(self) -> None:
        with contextlib.suppress(ProtocolError):  # how `stop` ends it
            for event in self.watch.stream(self.api.list_node, timeout_seconds=200):
                self.events.append((event["type"], event["object"].metadata.name))

    def stop(self) -> None:
        self.watch.stop()
        self.join(10)
        self.api.api_client.close()
        self.api.api_client.rest_client.pool_manager.clear()


class Silent:
    """A client that keeps its connection after an answer, as any does, and says nothing."""

    def __init__(self, rig: Rig) -> None:
        context = client_context(yaml.safe_load(rig.kubeconfig.read_text()))
        raw = socket.create_connection(("127.0.0.1", rig.balancer.ports["fleet"]), 10)
        self.sock: ssl.SSLSocket = context.wrap_socket(raw, server_hostname="127.0.0.1")
        self.sock.sendall(b"GET /version HTTP/1.1\r\nHost: h\r\n\r\n")
        assert self.sock.recv(65536).startswith(b"HTTP/1.1 200")
        self.sock.setblocking(False)

    def alive(self) -> bool:
        try:
            while self.sock.recv(65536):
                pass
        except (ssl.SSLWantReadError, BlockingIOError):
            return True
        except OSError:
            pass
        return False


def line_of(process: subprocess.Popen[str]) -> str:
    """What kubectl prints next, without what client-go says of its switch."""
    assert process.stdout is not None
    while "HTTP2 has been explicitly disabled" in (line := process.stdout.readline()):
        pass
    return line


def test_they_live_as_long_as_they_are_wanted(rig: Rig) -> None:
    new, old = rig.operator(), rig.operator(OLD_HTTP)
    with ExitStack() as stack:
        log, watch = (stack.enter_context(new.follow(*words)) for words in (LOGS, WATCH))
        shell = stack.enter_context(new.shell("exec", "-it", "box-7", "--", "sh"))
        old_log = stack.enter_context(old.follow(*LOGS))
        watches = {version: stack.enter_context(rig.operator(OLD_HTTP, version).follow(*WATCH)) for version in VERSIONS}
        python = PythonWatch(rig.kubeconfig)
        stack.callback(python.stop)
        python.start()
        silent = Silent(rig)
        stack.callback(silent.sock.close)
        assert [line_of(log), line_of(old_log)] == ["first\n"] * 2
        shell.type("echo $((6 * 7))\n")
        shell.expect("42")
        wait_until(lambda: len(python.events) == 2, "Python watches")
        streams = {"logs -f": log, "get -w": watch, **watches}

        start = time.monotonic()
        while time.monotonic() - start < SILENT_S:
            ended = {name: process.communicate()[0] for name, process in streams.items() if process.poll() is not None}
            assert not ended
            time.sleep(0.5)

        assert not [name for name, box in rig.cluster.boxes.items() if "disconnected" in box.agent.log_text()]
        assert rig.balancer.cut("tunnel") == 0
        with rig.log.open("a") as file:
            file.write("second\n")
        assert line_of(log) == "second\n"
        shell.type("echo $((6 * 9))\n")
        shell.expect("54")
        rig.cluster.boxes["box-8"].agent.stop()
        for name, process in {"get -w": watch, **watches}.items():
            assert line_of(process).split()[:2] == ["box-8", "NotReady"], name
        wait_until(lambda: ("MODIFIED", "box-8") in python.events, "Python was told")
        # What shows that the balancer does end what is silent; a log has no byte to spare in HTTP/1.1.
        assert not silent.alive()
        assert old_log.wait(10) != 0
        assert rig.balancer.cut("fleet") >= 2
