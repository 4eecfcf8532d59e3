"""What goes wrong between a real Kubernetes and its nodes, and what a user of kubectl sees of it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.trust.ca import CertificateAuthority, key_pem
from tests.e2e.cluster.kubernetes import SITES
from tests.e2e.cluster.tunnelled import Tunnelled
from tests.e2e.kubectls import kubectl_of
from tests.support.cluster import edit_toml
from tests.support.kubectl_choice import find_kubectl
from tests.support.port_forward import forwarding
from tests.support.processes import Daemon
from tests.support.tunnel import wait_until
from tests.support.waits import sooner_than

pytestmark = pytest.mark.timeout(180, func_only=True)

MIB = 1024 * 1024
CUT_S = 60.0
DIAL_S = 10
"""What a dial may take: an agent that is away is named after 3 s of waiting for it."""
"""Longer than it takes both ends to give a silent link up, and half of what sessions wait for the next."""
SPDY = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false"}
"""For an upload by kubectl 1.30 or newer. Over WebSocket it gives up 60 s after a write that nobody takes, and 61 s
after the last answer to its pings, which kube-apiserver does not read while it waits to pass bytes on.
"""
SPDY_ONLY = "1.29"
"""The last kubectl that knows no WebSocket."""
SHELL = ("app-site-a", "-c", "shell")
MAKE = "head -c {1}000000 /dev/urandom > {0}; sha256sum {0}"
WEB = ("app-site-a", "-c", "web")
COUNTER = ("app-site-a", "-c", "counter")
FOLLOW = [("logs", "-f", "--tail", "0"), ("attach",)]


class Download:
    """A file of a pod's web server, read through a port-forward when asked for."""

    def __init__(self, port: int, path: str) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port), 60)
        self._sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        head = b""
        while b"\r\n\r\n" not in head:
            head += self._sock.recv(65536)
        self._digest = hashlib.sha256(head.partition(b"\r\n\r\n")[2])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._sock.close()

    def rest(self) -> str:
        """The SHA-256 of all of it."""
        while data := self._sock.recv(MIB):
            self._digest.update(data)
        return self._digest.hexdigest()


class Copy:
    """A `kubectl cp` on its way."""

    def __init__(
        self, kube: Tunnelled, source: str, destination: str, *,
        program: Path | None = None, env: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        argv = [str(program or find_kubectl()), "cp", source, destination, "-c", "shell"]
        self._process = subprocess.Popen(
            argv, env={**kube.env, **(env or {})}, cwd=kube.folder, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> tuple[int, str]:
        """Exit code, and what it complained of."""
        complaint = self._process.communicate(timeout=60)[1]
        return self._process.returncode, complaint


def numbers(follower: subprocess.Popen[str]) -> Iterator[int]:
    """Those of the counter's lines."""
    assert follower.stdout is not None
    return (int(found[1]) for line in follower.stdout if (found := re.fullmatch(r"line (\d+)\n", line)))


def test_a_link_that_is_cut_under_everything(kube: Tunnelled) -> None:
    old = kubectl_of(SPDY_ONLY)
    content = os.urandom(200 * MIB)
    (kube.folder / "up").write_bytes(content)
    digest = kube.kubectl("exec", *WEB, "--", "sh", "-c", MAKE.format("/www/big", 100), timeout_s=120).split()[0]
    down = kube.kubectl("exec", *SHELL, "--", "sh", "-c", MAKE.format("/tmp/down", 400), timeout_s=120).split()[0]
    with contextlib.ExitStack() as stack:
        shell = stack.enter_context(kube.shell("exec", "-it", *SHELL, "--", "sh"))
        shell.type("echo here $((20 + 22))\n")
        shell.expect("here 42")
        counts = [numbers(stack.enter_context(kube.follow(*verb, *COUNTER))) for verb in FOLLOW]
        first = [next(count) for count in counts]
        port = stack.enter_context(forwarding(kube, "app-site-a"))
        download = stack.enter_context(Download(port, "/big"))
        copies = [stack.enter_context(Copy(kube, "app-site-a:/tmp/down", "down"))]
        wait_until((kube.folder / "down").exists, "the first copy has begun")
        copies.append(stack.enter_context(Copy(kube, "up", "app-site-a:/tmp/up", env=SPDY)))
        copies.append(stack.enter_context(Copy(kube, "up", "app-site-a:/tmp/up-old", program=old)))
        begun = ("exec", *SHELL, "--", "sh", "-c", "test -s /tmp/up && test -s /tmp/up-old")
        wait_until(lambda: kube.run_kubectl(*begun).returncode == 0, "the other copies have begun")
        logged = len(kube.cluster.server.log_text())
        with kube.cut("site-a"):
            shell.type("echo still $((20 + 22))\n")
            time.sleep(CUT_S)  # the fault itself
            assert all(copy.running for copy in copies), "the cut came too late"
        shell.expect("still 42", 30)
        assert '"resumed":true' in kube.cluster.server.wait_for_log('"event":"agent connected"', after=logged)
        more = range(1, 1 + int(CUT_S * 10))
        assert [[next(count) for _ in more] for count in counts] == [[begin + n for n in more] for begin in first]
        assert download.rest() == digest
        assert [copy.wait() for copy in copies] == 3 * [(0, "")]
        assert hashlib.sha256((kube.folder / "down").read_bytes()).hexdigest() == down
        up = kube.kubectl("exec", *SHELL, "--", "sha256sum", "/tmp/up", "/tmp/up-old").split()[::2]
        assert up == 2 * [hashlib.sha256(content).hexdigest()]
        shell.type("exit 7\n")
        assert shell.wait() == 7
    kube.kubectl("exec", *SHELL, "--", "rm", "/tmp/up", "/tmp/up-old", "/tmp/down")
    kube.kubectl("exec", *WEB, "--", "rm", "/www/big")


def test_a_reader_of_logs_that_stops_slows_nobody(kube: Tunnelled) -> None:
    flood = "head -c 40000000 /dev/zero | tr '\\0' x | fold -w 1000 > /proc/1/fd/1"
    kube.kubectl("exec", *SHELL, "--", "sh", "-c", flood)
    idle_s = exec_s(kube)
    with kube.follow("logs", "-f", *SHELL) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "x" * 1000 + "\n"
        reader.send_signal(signal.SIGSTOP)
        stalled_s = exec_s(kube)
        assert reader.poll() is None
    # Behind a reader that stands still an exec would not end at all; the rest is the machine's noise.
    assert stalled_s < 4 * idle_s


def exec_s(kube: Tunnelled, rounds: int = 9) -> float:
    """The time of an exec when nothing else on this machine was in its way: the least of some."""
    took = []
    for _ in range(rounds):
        start = time.monotonic()
        kube.kubectl("exec", *SHELL, "--", "true")
        took.append(time.monotonic() - start)
    return min(took)


def test_a_cloud_server_that_is_killed_and_comes_back(kube: Tunnelled) -> None:
    kube.cluster.server.kill()
    refused = kube.run_kubectl("exec", *SHELL, "--", "true", timeout_s=15)
    assert refused.returncode == 1
    assert b"connect.sock" in refused.stderr
    kube.cluster.start()
    for site in SITES:
        wait_until(functools.partial(is_reached, kube, site), f"{site} is reached again", 20)
    assert " NotReady " not in kube.kubectl("get", "nodes")


def test_a_second_agent_with_the_name_of_a_node_and_another_key(kube: Tunnelled) -> None:
    cloud, name = kube.cluster, "site-b"
    twin = cloud.boxes[name].state.with_name(f"{name}.twin")
    shutil.copytree(cloud.boxes[name].state, twin, ignore=shutil.ignore_patterns("admin.sock"))
    # With a certificate of the right authority: nothing but the key tells them apart.
    key = ec.generate_private_key(ec.SECP256R1())
    authority = CertificateAuthority.load(cloud.config.parent, "longline")
    (twin / "agent.crt").write_bytes(authority.issue_agent(name, key.public_key()))
    (twin / "agent.key").write_bytes(key_pem(key))
    edit_toml(twin / "edge-agent.toml", {"listen": None})
    argv = ["edge-agent", "run", "--config", str(twin / "edge-agent.toml")]
    prefix = kube.kubernetes.nodes["site-a"].namespaces.enter_network
    with kube.shell("exec", "-it", *shell_of(name), "--", "sh") as shell:
        shell.type("echo before $((20 + 22))\n")
        shell.expect("before 42")
        with Daemon("twin", argv, twin / "agent.log", prefix=prefix) as agent:
            agent.start()
            agent.wait_for_log("belongs to another key", 15)
            assert agent.running, "it goes on trying: an operator may decide for it"
            assert "READY=1" not in agent.notify.states
        shell.type("echo after $((20 + 22))\n")
        shell.expect("after 42")
        shell.type("exit 0\n")
        assert shell.wait() == 0
    assert kube.kubectl("exec", *shell_of(name), "--", "hostname") == f"app-{name}\n"


def test_an_agent_that_is_killed_is_named_within_seconds(kube: Tunnelled) -> None:
    name = "site-b"
    kube.cluster.boxes[name].agent.kill()
    try:
        with sooner_than(DIAL_S, "the answer"):
            refused = kube.run_kubectl("exec", *shell_of(name), "--", "true")
        assert refused.returncode == 1
        assert f"503 LL4002: agent {name} is away since".encode() in refused.stderr, refused.stderr
    finally:
        kube.cluster.start_box(name)
    assert kube.kubectl("exec", *shell_of(name), "--", "echo", "back") == "back\n"


def is_reached(kube: Tunnelled, where: str) -> bool:
    return kube.run_kubectl("exec", *shell_of(where), "--", "true").returncode == 0


def shell_of(where: str) -> tuple[str, ...]:
    return (f"app-{where}", "-c", "shell")
