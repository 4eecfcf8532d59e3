"""A stock kubectl on a box behind NAT that runs a real kubelet, and no Kubernetes beyond it: real pods in the fleet."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator

import pytest
from kubernetes import client, config
from kubernetes.stream import stream

from tests.e2e.cluster import requirements, site
from tests.e2e.cluster.kubelet_box import BOX, OWN_NAME, POD, KubeletBox, kubelet_box
from tests.support.port_forward import forwarding, get
from tests.support.tunnel import wait_until

# Only of the test itself: when Kubernetes has to be built first, that takes minutes.
pytestmark = pytest.mark.timeout(60, func_only=True)

MIB = 1024 * 1024
SHELL = (POD, "-c", "shell")


@pytest.fixture(scope="module")
def box() -> Iterator[KubeletBox]:
    if reason := requirements.missing():
        pytest.skip(reason)
    with kubelet_box() as made:
        wait_until(lambda: "3/3" in made.kubectl("get", "pods", POD), "the pod runs", 30)
        yield made


def test_nothing_reaches_the_box_directly(box: KubeletBox) -> None:
    # From its own router: from anywhere else there is not even a way.
    dial = f"import socket; socket.create_connection(('{site.NODE_ADDRESS}', 10250), 0.5)"
    with pytest.raises(Exception, match="timed out"):
        box.router.run("python3", "-c", dial)


def test_nodes(box: KubeletBox) -> None:
    (node,) = box.kubectl("get", "nodes", "-o", "wide", "--no-headers").splitlines()
    assert node.split()[:2] == [BOX, "Ready"]
    assert site.NODE_ADDRESS in node


def test_pods(box: KubeletBox) -> None:
    head, pod = (re.split(r"\s{2,}", line) for line in box.kubectl("get", "pods", "-o", "wide").splitlines())
    cells = dict(zip(head, pod, strict=False))
    assert [cells[name] for name in ("NAME", "READY", "STATUS", "NODE")] == [POD, "3/3", "Running", BOX]
    assert cells["IP"].startswith("10.244.1.")
    assert re.fullmatch(r"\d+[sm]|\d+m\d+s", cells["AGE"])
    assert "longline.test/box:1" in box.kubectl("describe", "pod", POD)


class TestTop:
    def test_the_box_and_its_pods(self, box: KubeletBox) -> None:
        def pods() -> list[str]:
            return box.run_kubectl("top", "pods", "--containers", "--no-headers").stdout.decode().splitlines()

        # A kubelet measures a container some seconds after its start, and an answer is good for a while.
        wait_until(lambda: len(pods()) == 3, "the containers are measured", 45)
        assert [row.split()[:2] for row in sorted(pods())] == [[POD, name] for name in ("counter", "shell", "web")]
        (node,) = box.kubectl("top", "nodes", "--no-headers").splitlines()
        name, cpu, _, memory, share = node.split()
        assert (name, cpu[-1], memory[-2:]) == (BOX, "m", "Mi")
        assert 0 < int(share.removesuffix("%")) <= 100

    def test_what_it_runs_short_of(self, box: KubeletBox) -> None:
        described = box.kubectl("describe", "node", BOX)
        assert re.search(r"MemoryPressure\s+(True|False)", described)


class TestExec:
    def test_output_and_exit_code(self, box: KubeletBox) -> None:
        ended = box.run_kubectl("exec", *SHELL, "--", "sh", "-c", "echo out; echo err >&2; exit 42")
        assert (ended.returncode, ended.stdout) == (42, b"out\n")
        assert ended.stderr.startswith(b"err\n")

    def test_it_runs_in_the_container(self, box: KubeletBox) -> None:
        assert box.kubectl("exec", *SHELL, "--", "hostname") == f"{OWN_NAME}\n"

    @pytest.mark.parametrize("size", [0, 1, 5 * MIB])
    def test_stdin_and_stdout_are_whole(self, box: KubeletBox, size: int) -> None:
        content = os.urandom(size)
        done = box.run_kubectl("exec", "-i", *SHELL, "--", "cat", stdin=content)
        assert (done.returncode, done.stdout) == (0, content)

    def test_a_shell_on_a_terminal(self, box: KubeletBox) -> None:
        with box.shell("exec", "-it", *SHELL, "--", "sh", size=(30, 101)) as shell:
            shell.type("stty size; tty\n")
            shell.expect(r"30 101\s+/dev/pts/\d+")
            shell.resize(31, 99)
            shell.type("while [ \"$(stty size)\" != '31 99' ]; do sleep 0.1; done; echo resi''zed\n")
            shell.expect("resized")
            shell.type("echo a''sleep; sleep 100\n")
            shell.expect("asleep")
            shell.type("\x03")
            shell.expect(r"\^C")  # what is typed before it is thrown away by the terminal
            shell.type("echo still $((20 + 22))\n")
            shell.expect("still 42")
            shell.type("exit 7\n")
            assert shell.wait() == 7

    def test_a_command_that_is_not_there(self, box: KubeletBox) -> None:
        missing = box.run_kubectl("exec", *SHELL, "--", "no-such-command")
        assert missing.returncode != 0
        assert b"no-such-command" in missing.stderr

    def test_the_official_python_client(self, box: KubeletBox) -> None:
        with config.new_client_from_config(str(box.kubeconfig)) as made:  # type: ignore[no-untyped-call]
            session = stream(
                client.CoreV1Api(made).connect_get_namespaced_pod_exec, POD, "default", container="shell",
                command=["sh", "-c", "read line; echo got $line; exit 5"],
                stdin=True, stdout=True, stderr=True, tty=False, _preload_content=False,
            )  # fmt: skip
            session.write_stdin("hello\n")
            session.run_forever(timeout=20)
            assert (session.read_stdout(), session.returncode) == ("got hello\n", 5)
            session.sock.shutdown()  # its own close leaves a socket open that the server has closed


class TestLogs:
    def test_tail(self, box: KubeletBox) -> None:
        lines = box.kubectl("logs", POD, "-c", "counter", "--tail", "2").splitlines()
        first = int(lines[0].removeprefix("line "))
        assert lines == [f"line {first}", f"line {first + 1}"]

    def test_timestamps_and_since(self, box: KubeletBox) -> None:
        lines = box.kubectl("logs", POD, "-c", "counter", "--timestamps", "--since", "2s").splitlines()
        assert 5 < len(lines) < 40
        assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT\S+Z line \d+", line) for line in lines)

    def test_follow(self, box: KubeletBox) -> None:
        with box.follow("logs", "-f", POD, "-c", "counter", "--tail", "0") as follower:
            assert follower.stdout is not None
            numbers = [int(follower.stdout.readline().removeprefix("line ")) for _ in range(20)]
        assert numbers == list(range(numbers[0], numbers[0] + 20))

    @pytest.mark.parametrize(
        ("words", "said"),
        [(("-c", "counter", "--previous"), b"previous terminated container"), (("-c", "nothing"), b"nothing")],
    )
    def test_what_there_is_not(self, box: KubeletBox, words: tuple[str, ...], said: bytes) -> None:
        missing = box.run_kubectl("logs", POD, *words)
        assert missing.returncode == 1
        assert said in missing.stderr


class TestCopy:
    def test_both_ways(self, box: KubeletBox) -> None:
        content = os.urandom(20 * MIB)
        (box.folder / "there.bin").write_bytes(content)
        box.kubectl("cp", "there.bin", f"{POD}:/tmp/it.bin", "-c", "shell")
        summed = box.kubectl("exec", *SHELL, "--", "sha256sum", "/tmp/it.bin").split()[0]
        assert summed == hashlib.sha256(content).hexdigest()
        box.kubectl("cp", f"{POD}:/tmp/it.bin", "back.bin", "-c", "shell")
        assert (box.folder / "back.bin").read_bytes() == content


class TestOther:
    def test_attach(self, box: KubeletBox) -> None:
        with box.follow("attach", POD, "-c", "counter") as attached:
            assert attached.stdout is not None
            while not re.match(r"line \d+", attached.stdout.readline()):
                assert attached.poll() is None

    def test_port_forward(self, box: KubeletBox) -> None:
        with forwarding(box, POD) as port:
            assert get(port) == b"hello from the edge\n"


def test_a_kubelet_that_is_not_there(box: KubeletBox) -> None:
    box.node.kubelet.kill()
    started = box.run_kubectl("exec", *SHELL, "--", "true")
    assert started.returncode == 1
    assert b"kubelet at 127.0.0.1:10250: connection refused" in started.stderr
    assert " Ready " in box.kubectl("get", "nodes")
    box.node.kubelet.start()
    wait_until(lambda: box.run_kubectl("exec", *SHELL, "--", "true").returncode == 0, "the kubelet is back", 30)
