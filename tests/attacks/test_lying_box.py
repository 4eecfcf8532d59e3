"""A box lies about its pods, its namespaces and itself: it costs itself, and the boxes beside it notice nothing.

Each test fails without the guard that it is about.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.cluster import Cluster, cluster
from tests.support.kubectl_user import KubectlUser
from tests.support.targets import Target
from tests.support.tunnel import BOX, exchange, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(280)]
ROOT = Path(__file__).parent.parent.parent
MIB = 1024 * 1024
TRIES = 4
"""How often a measurement may be disturbed by what else the machine does. A server without its guards passes none."""
MOST = 2.0
"""How many times as long as without the attack the slowest of a hundred echoes of others may take."""
ROUND_S = 4.0


@dataclass(kw_only=True)
class Liar:
    """A hostile box that runs."""

    process: subprocess.Popen[str]
    folder: Path
    told: list[str] = field(default_factory=list)
    """What it has written so far: `connected`, and requests to its kubelet."""

    def tell(self, **command: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def connect(self, times: int = 1) -> None:
        before = self.told.count("connected")
        self.tell(connect=times)
        wait_until(lambda: self.told.count("connected") == before + times, "the box is connected", 30)

    def answer(self, **bodies: bytes) -> None:
        """What its kubelet answers, by the first word of the path."""
        files = {}
        for name, body in bodies.items():
            file = self.folder / f"{name}.{len(self.told)}.{time.monotonic_ns()}"
            file.write_bytes(body)
            files[f"/{name}"] = str(file)
        self.tell(answers=files)

    def list_pods(self, *pods: dict[str, Any]) -> None:
        """Have its kubelet list these, and the server read them."""
        asked = self.told.count("/pods")
        self.answer(pods=json.dumps({"kind": "PodList", "items": pods}).encode())
        self.connect()
        wait_until(lambda: self.was_asked(asked), "the server asks for its pods", 30)

    def was_asked(self, before: int) -> bool:
        """Whether the server has asked for its pods more often than before."""
        return self.told.count("/pods") > before


@dataclass(kw_only=True)
class Street(KubectlUser):
    """A server with an honest box, which has a shell and an echo, and the identities of others."""

    made: Cluster
    connection: socket.socket
    kubeconfig: Path
    folder: Path

    def echo_p99_s(self) -> float:
        took = []
        end_s = time.monotonic() + ROUND_S
        while (began_s := time.monotonic()) < end_s:
            assert exchange(self.connection) == b"ping"
            took.append(time.monotonic() - began_s)
        return sorted(took)[len(took) * 99 // 100]

    def rss_bytes(self) -> int:
        return psutil.Process(self.made.server.pid).memory_info().rss

    @contextlib.contextmanager
    def liar(self, name: str) -> Iterator[Liar]:
        if name not in self.made.boxes:
            self.made.join(name)
        state = self.made.boxes[name].state
        argv = [sys.executable, "-m", "tests.attacks.lying_box", self.made.tunnel_address, str(state)]
        seen = len(self.made.server.log_text())
        with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
            liar = Liar(process=process, folder=self.folder)

            def listen() -> None:
                assert process.stdout is not None
                for line in process.stdout:
                    liar.told.append(line.strip())

            listening = threading.Thread(target=listen)
            listening.start()
            try:
                yield liar
            finally:
                process.kill()
                listening.join()
        said = self.made.server.log_text()[seen:]
        assert "Traceback" not in said
        assert "a fault in this program" not in said

    def has_namespace(self, name: str) -> bool:
        return name in self.names("namespaces")

    def names(self, what: str, *words: str) -> list[str]:
        return [line.partition("/")[2] for line in self.kubectl("get", what, *words, "-o", "name").split()]


@pytest.fixture(scope="module")
def street() -> Iterator[Street]:
    with cluster() as made, Target("echo") as echo:
        made.configure({"log": {"format": "console"}})
        made.start()
        made.join(BOX, allow=[f"127.0.0.1:{echo.port}"], host={"exec": True, "user": "root"})
        made.start_box(BOX)
        folder = made.folder / "scratch"
        folder.mkdir()
        with made.dial(f"{BOX}:{echo.port}") as connection:
            place = Street(made=made, connection=connection, kubeconfig=made.kubeconfig(), folder=folder)
            wait_until(lambda: "Running" in place.run_kubectl("get", "pod", BOX).stdout.decode(), "the box is a pod")
            yield place


def pod(name: str, namespace: str = "default", **changes: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": "the-same-for-all", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "web"}]},
        "status": {"phase": "Running"},
    } | changes


def large_list() -> bytes:
    """6.7 MB of pods, each of which is another one in each answer, down to its last text."""
    dice = random.Random(5)
    text = "%d" + "".join(dice.choices("abcdefghijklmnopqrstuvwxyz ", k=915))
    pods = [
        pod(
            f"p{number}-%d",
            metadata={"name": f"p{number}-%d", "annotations": {f"note-{one}": f"{one} {text}" for one in range(12)}},
        )
        for number in range(600)
    ]
    return json.dumps({"kind": "PodList", "items": pods}).encode()


def test_a_long_list_again_and_again_costs_others_nothing(street: Street) -> None:
    ratios = []
    with street.liar("large") as liar, street.follow("get", "pods", "-A", "-w"):
        liar.answer(pods=(body := large_list()))
        assert len(body) > 6.7e6
        before = street.rss_bytes()
        for _ in range(TRIES):
            quiet_s = street.echo_p99_s()
            lists = liar.told.count("/pods")
            liar.tell(connect=12)
            loud_s = street.echo_p99_s()
            wait_until(partial(liar.was_asked, lists), "its pods are asked for", 90)
            ratios.append(loud_s / quiet_s)
            took = f"p99 {quiet_s * 1e3:.2f} -> {loud_s * 1e3:.2f} ms"
            print(f"{took}, RSS {before >> 20} -> {street.rss_bytes() >> 20} MiB")
        wait_until(lambda: "TooLarge" in street.kubectl("describe", "node", "large"), "its list was read", 60)
        assert street.rss_bytes() - before < 30 * MIB
    assert min(ratios) < MOST


def test_no_box_takes_hides_or_imitates_the_pod_of_another(street: Street) -> None:
    with street.liar("mallory") as mallory, street.liar("trent") as trent:
        mallory.list_pods(pod(BOX), pod("trent"), pod("web"), pod("web.trent"), pod("mallory"), pod("late"))
        trent.list_pods(pod("web"), pod("proxy", "kube-system"))
        mine = ["late.mallory", "mallory", "trent.mallory", "web.mallory", "web.trent.mallory", f"{BOX}.mallory"]
        wait_until(lambda: {*mine, BOX, "web.trent"} <= {*street.names("pods")}, "both boxes' pods are there", 30)
        assert street.kubectl("exec", BOX, "--", "echo", "it", "is", "me") == "it is me\n"
        street.made.join("late", host={"exec": True, "user": "root"})
        street.made.start_box("late")
        wait_until(lambda: "Running" in street.run_kubectl("get", "pod", "late").stdout.decode(), "the box is a pod")
        assert street.kubectl("exec", "-i", "late", "--", "cat", stdin=b"secret") == "secret"
        street.run_kubectl("exec", "web.trent", "--", "id")
        wait_until(lambda: any("/exec/default/web/" in one for one in trent.told), "trent is asked", 10)
        assert not [one for one in mallory.told if "exec" in one]
        uids = street.kubectl("get", "pods", "-A", "-o", "jsonpath={.items[*].metadata.uid}").split()
        assert len(set(uids)) == len(uids) > 8
        asked = street.run_kubectl("exec", "web", "--", "id")
        assert asked.returncode != 0
        assert b"did you mean web.mallory or web.trent?" in asked.stderr
        mallory.list_pods()
        wait_until(lambda: not {*mine} & {*street.names("pods")}, "its pods are gone", 30)
        assert {BOX, "late", "web.trent"} <= {*street.names("pods")}


def test_one_malformed_pod_spoils_nothing(street: Street) -> None:
    with street.liar("broken") as broken, street.liar("good") as good:
        good.answer(pods=json.dumps({"items": [pod("web")]}).encode(), containerLogs=b"a line of the good box\n")
        good.connect()
        broken.list_pods(
            pod("texts", status={"phase": 5, "startTime": "yesterday", "conditions": "none"}),
            pod(
                "numbers",
                spec={"containers": [{"name": "web", "ports": [{"containerPort": "http"}]}], "priority": 1e99},
            ),
            pod("metadata", metadata={"name": "metadata", "labels": {"app": "web"}, "creationTimestamp": 7, "uid": {}}),
            {"metadata": {"name": "web"}},
            pod("good", metadata={"name": "good"}),
        )
        wait_until(lambda: {"web.good", "good.broken"} <= {*street.names("pods")}, "their pods are there", 30)
        read = street.run_kubectl("logs", "-l", "app=web", "--tail=1", "--prefix", "--ignore-errors")
        assert b"[pod/web.good/web] a line of the good box" in read.stdout, read.stderr
        assert "web.good" in street.kubectl("get", "pods", "-A", "-o", "wide")
        assert "numbers.broken" in street.kubectl("describe", "pods")
        told = street.kubectl("describe", "node", "broken")
        (condition,) = [line for line in told.splitlines() if "PodsIncomplete" in line]
        assert "Malformed" in condition
        assert "1 of its pods are no pods of Kubernetes" in condition
        assert "PodsIncomplete" not in street.kubectl("describe", "node", "good")
        broken.list_pods(pod("good"))
        wait_until(
            lambda: "PodsIncomplete" not in street.kubectl("describe", "node", "broken"), "the condition is over", 30
        )


def test_namespaces_are_few_and_go_with_their_last_pod(street: Street) -> None:
    before = {*street.names("namespaces")}
    with street.liar("naming") as liar:
        for number in range(3):
            liar.list_pods(*(pod("p", f"of-{number}-{one}") for one in range(400)))
            wait_until(partial(street.has_namespace, f"of-{number}-0"), "its namespaces are there", 30)
            assert len({*street.names("namespaces")} - before) <= 64
        assert "TooMany" in street.kubectl("describe", "node", "naming")
        liar.list_pods()
        wait_until(lambda: {*street.names("namespaces")} == before, "they are gone", 30)


def test_nothing_that_a_box_says_moves_a_cursor(street: Street) -> None:
    evil = "\x1b[2J\x1b]0;owned\x07"
    with street.liar("artist") as liar:
        texts = dict.fromkeys(("hostname", "os_image", "kernel", "architecture", "machine_id"), f"x{evil}")
        seen = len(street.made.server.log_text())
        liar.tell(hello={"version": f"1{evil}", "labels": {"site": evil}, **texts})
        bad = pod("art", status={"phase": f"Running{evil}", "reason": evil, "message": evil})
        liar.list_pods(bad | {"spec": {"containers": [{"name": "web", "image": evil, "command": [evil]}]}}, pod(evil))
        wait_until(lambda: "art.artist" in street.names("pods"), "its pod is there", 30)
        shown = [
            street.kubectl(*words)
            for words in (
                ("get", "nodes", "-o", "wide"), ("get", "nodes", "-o", "yaml"), ("describe", "node", "artist"),
                ("get", "pods", "-A", "-o", "wide"), ("get", "pods", "-A", "-o", "yaml"),
                ("describe", "pods", "art.artist"),
            )
        ]  # fmt: skip
        liar.answer(pods=b"{}", exec=evil.encode(), containerLogs=b"")
        shown.append(street.run_kubectl("exec", "art.artist", "--", "id").stderr.decode())
    wait_until(lambda: "agent=artist" in street.made.server.log_text()[seen:], "the log names it")
    for text in (*shown, street.made.server.log_text()[seen:]):
        assert "\x1b" not in text
        assert "\\x1b" not in text
        assert "\\e" not in text
        assert "\x07" not in text
    assert "1?" in shown[0]
