"""What goes wrong between a real Kubernetes and its nodes, and what a user of kubectl sees of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import statistics
import subprocess
import time
from typing import Self

import pytest

from tests.e2e.cluster.tunnelled import Tunnelled
from tests.support.kubectl_choice import find_kubectl
from tests.support.port_forward import forwarding
from tests.support.tunnel import wait_until

pytestmark = pytest.mark.timeout(180, func_only=True)

MIB = 1024 * 1024
CUT_S = 20.0
"""Longer than it takes both ends to give a silent link up, and shorter than sessions wait for the next.

And shorter than kubectl itself waits: it ends an upload of which nothing moves for 60 s.
"""
SHELL = ("app-site-a", "-c", "shell")
MAKE = "head -c {1}000000 /dev/urandom > {0}; sha256sum {0}"
WEB = ("app-site-a", "-c", "web")


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

    def __init__(self, kube: Tunnelled, source: str, destination: str) -> None:
        argv = [str(find_kubectl()), "cp", source, destination, "-c", "shell"]
        self._process = subprocess.Popen(argv, env=kube.env, cwd=kube.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.kill()
        self._process.wait()

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait(self) -> int:
        return self._process.wait(60)


def test_a_link_that_is_cut_under_everything(kube: Tunnelled) -> None:
    content = os.urandom(300 * MIB)
    (kube.folder / "up").write_bytes(content)
    digest = kube.kubectl("exec", *WEB, "--", "sh", "-c", MAKE.format("/www/big", 100)).split()[0]
    down = kube.kubectl("exec", *SHELL, "--", "sh", "-c", MAKE.format("/tmp/down", 400)).split()[0]
    with contextlib.ExitStack() as stack:
        shell = stack.enter_context(kube.shell("exec", "-it", *SHELL, "--", "sh"))
        shell.type("echo here $((20 + 22))\n")
        shell.expect("here 42")
        logs = stack.enter_context(kube.follow("logs", "-f", "app-site-a", "-c", "counter", "--tail", "0"))
        assert logs.stdout is not None
        first = int(logs.stdout.readline().removeprefix("line "))
        port = stack.enter_context(forwarding(kube, "app-site-a"))
        download = stack.enter_context(Download(port, "/big"))
        copies = [stack.enter_context(Copy(kube, "app-site-a:/tmp/down", "down"))]
        wait_until((kube.folder / "down").exists, "the first copy has begun")
        copies.append(stack.enter_context(Copy(kube, "up", "app-site-a:/tmp/up")))
        begun = ("exec", *SHELL, "--", "test", "-s", "/tmp/up")
        wait_until(lambda: kube.run_kubectl(*begun).returncode == 0, "the second copy has begun")
        with kube.cut("site-a"):
            shell.type("echo still $((20 + 22))\n")
            time.sleep(CUT_S)  # the fault itself
            assert all(copy.running for copy in copies), "the cut came too late"
        shell.expect("still 42", 30)
        numbers = [int(logs.stdout.readline().removeprefix("line ")) for _ in range(int(CUT_S * 10))]
        assert numbers == list(range(first + 1, first + 1 + len(numbers)))
        assert download.rest() == digest
        assert [copy.wait() for copy in copies] == [0, 0]
        assert hashlib.sha256((kube.folder / "down").read_bytes()).hexdigest() == down
        summed = kube.kubectl("exec", *SHELL, "--", "sha256sum", "/tmp/up").split()[0]
        assert summed == hashlib.sha256(content).hexdigest()
        shell.type("exit 7\n")
        assert shell.wait() == 7
    kube.kubectl("exec", *SHELL, "--", "rm", "/tmp/up", "/tmp/down")
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
    assert stalled_s < 1.5 * idle_s


def exec_s(kube: Tunnelled, rounds: int = 9) -> float:
    """The median time of an exec."""
    took = []
    for _ in range(rounds):
        start = time.monotonic()
        kube.kubectl("exec", *SHELL, "--", "true")
        took.append(time.monotonic() - start)
    return statistics.median(took)


def test_a_cloud_server_that_is_killed_and_comes_back(kube: Tunnelled) -> None:
    kube.cluster.server.kill()
    refused = kube.run_kubectl("exec", *SHELL, "--", "true", timeout_s=15)
    assert refused.returncode == 1
    assert b"connect.sock" in refused.stderr
    kube.cluster.start()
    works = ("exec", *SHELL, "--", "true")
    assert wait_until(lambda: kube.run_kubectl(*works).returncode == 0, "the node is reached again", 20) < 20
    assert " NotReady " not in kube.kubectl("get", "nodes")
