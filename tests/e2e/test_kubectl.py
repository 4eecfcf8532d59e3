"""A stock kubectl on a box behind NAT that has no Kubernetes: what users do with it, through real daemons."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.site import Site
from tests.support.tunnel import BOX, wait_until

MIB = 1024 * 1024


def rows(table: str) -> list[list[str]]:
    """The cells of each line of a kubectl table."""
    return [re.split(r"\s{2,}|\t", line.strip()) for line in table.splitlines()]


@contextmanager
def growing(made: Site) -> Iterator[None]:
    """Meanwhile a line is added to the box's log every 50 ms."""
    leave = threading.Event()

    def write() -> None:
        number = 0
        while not leave.wait(0.05):
            number += 1
            with made.log.open("a") as log:
                log.write(f"new {number}\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        leave.set()
        writer.join()


def test_nothing_reaches_the_box_directly(shared: Site) -> None:
    if shared.namespace is None:
        pytest.skip("the box has no network of its own")
    with pytest.raises(TimeoutError):
        socket.create_connection((shared.namespace.address, 22), 0.5)


class TestGet:
    def test_nodes(self, shared: Site) -> None:
        head, node = rows(shared.kubectl("get", "nodes"))
        assert head == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
        assert node[:2] == [BOX, "Ready"]

    def test_nodes_wide(self, shared: Site) -> None:
        head, node = rows(shared.kubectl("get", "nodes", "-o", "wide"))
        cells = dict(zip(head, node, strict=False))
        assert cells["NAME"] == BOX
        assert cells["KERNEL-VERSION"] == os.uname().release
        if shared.namespace is not None:
            assert cells["INTERNAL-IP"] == shared.namespace.address

    def test_pods(self, shared: Site) -> None:
        head, pod = rows(shared.kubectl("get", "pods"))
        assert head == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
        assert pod[:3] == [BOX, "2/2", "Running"]
        assert BOX in shared.kubectl("get", "pods", "-A", "-o", "wide")

    @pytest.mark.parametrize("kind", ["node", "pod"])
    def test_json_yaml_names_and_paths(self, shared: Site, kind: str) -> None:
        shown = json.loads(shared.kubectl("get", kind, BOX, "-o", "json"))
        assert shown["kind"].lower() == kind
        assert shown["metadata"]["name"] == BOX
        assert f"name: {BOX}\n" in shared.kubectl("get", kind, BOX, "-o", "yaml")
        assert shared.kubectl("get", kind, "-o", "name") == f"{kind}/{BOX}\n"
        assert shared.kubectl("get", kind, "-o", "jsonpath={.items[0].metadata.name}") == BOX

    def test_selectors(self, shared: Site) -> None:
        assert BOX in shared.kubectl("get", "nodes", "-l", f"kubernetes.io/hostname={BOX}")
        assert BOX not in shared.kubectl("get", "nodes", "-l", f"kubernetes.io/hostname!={BOX}")
        assert BOX in shared.kubectl("get", "pods", "--field-selector", f"spec.nodeName={BOX}")

    @pytest.mark.parametrize("kind", ["node", "pod"])
    def test_describe(self, shared: Site, kind: str) -> None:
        assert re.search(rf"^Name:\s+{BOX}$", shared.kubectl("describe", kind, BOX), re.MULTILINE)

    def test_what_is_not_there_is_said_in_kubernetes_words(self, shared: Site) -> None:
        missing = shared.run_kubectl("get", "node", "no-such-box")
        assert missing.returncode == 1
        assert b'nodes "no-such-box" not found' in missing.stderr
        assert shared.run_kubectl("delete", "node", BOX).returncode == 1
        assert BOX in shared.kubectl("get", "nodes")

    @pytest.mark.timeout(90)
    def test_watch_sees_a_box_leave_and_return(self, shared: Site) -> None:
        with shared.follow("get", "nodes", "-w", "--no-headers") as watch:
            assert watch.stdout is not None
            assert " Ready " in watch.stdout.readline()
            shared.box.agent.kill()
            assert "NotReady" in watch.stdout.readline()
            shared.cluster.start_box(BOX)
            assert " Ready " in watch.stdout.readline()


class TestExec:
    def test_output_and_exit_code(self, shared: Site) -> None:
        assert shared.kubectl("exec", BOX, "--", "echo", "hello") == "hello\n"
        ended = shared.run_kubectl("exec", BOX, "--", "sh", "-c", "echo out; echo err >&2; exit 42")
        assert ended.returncode == 42
        assert ended.stdout == b"out\n"
        assert ended.stderr.startswith(b"err\n")

    def test_it_runs_on_the_box(self, shared: Site) -> None:
        if shared.namespace is None:
            pytest.skip("the box has no network of its own")
        network = shared.kubectl("exec", BOX, "--", "readlink", "/proc/self/ns/net").strip()
        assert network == shared.namespace.run("readlink", "/proc/self/ns/net").strip()

    @pytest.mark.parametrize("size", [0, 1, 100_000, 5 * MIB])
    def test_stdin_and_stdout_are_whole(self, shared: Site, size: int) -> None:
        content = os.urandom(size)
        done = shared.run_kubectl("exec", "-i", BOX, "--", "cat", stdin=content)
        assert done.returncode == 0
        assert done.stdout == content

    def test_a_shell_on_a_terminal(self, shared: Site) -> None:
        with shared.shell("exec", "-it", BOX, "--", "sh", size=(30, 101)) as shell:
            shell.type("stty size; tty\n")
            shell.expect(r"30 101\s+/dev/pts/\d+")
            shell.resize(31, 99)
            shell.type("sleep 0.2; stty size\n")
            shell.expect("31 99")
            shell.type("sh -c 'echo go\"\"ing; exec sleep 100'\n")
            shell.expect("going")  # a shell that is just about to start a command may lose the Ctrl-C
            shell.type("\x03")
            shell.expect(r"\^C")  # what is typed before it is thrown away by the terminal
            shell.type("echo still $((20 + 22))\n")
            shell.expect("still 42")
            shell.type("exit 7\n")
            assert shell.wait() == 7

    def test_a_command_that_is_not_there(self, shared: Site) -> None:
        missing = shared.run_kubectl("exec", BOX, "--", "no-such-command")
        assert missing.returncode != 0
        assert b"no-such-command" in missing.stderr

    def test_a_client_that_leaves_ends_its_command(self, shared: Site) -> None:
        mark = shared.folder / "pid"
        with shared.follow("exec", BOX, "--", "sh", "-c", f"echo $$ > {mark}; exec sleep 1000"):
            wait_until(lambda: mark.exists() and mark.read_text().strip(), "the command to run", 20)
        pid = int(mark.read_text())
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the command to end with its client", 20)


class TestLogs:
    def test_all_and_tail(self, shared: Site) -> None:
        everything = shared.kubectl("logs", BOX, "-c", "app.log")
        assert everything == shared.log.read_text()
        assert shared.kubectl("logs", BOX, "-c", "app.log", "--tail", "2").splitlines() == everything.splitlines()[-2:]
        limited = shared.kubectl("logs", BOX, "-c", "app.log", "--limit-bytes", "10")
        assert limited == everything[:10]

    def test_follow(self, shared: Site) -> None:
        with growing(shared), shared.follow("logs", "-f", BOX, "-c", "app.log", "--tail", "0") as follower:
            assert follower.stdout is not None
            numbers = [int(follower.stdout.readline().removeprefix("new ")) for _ in range(20)]
        assert numbers == list(range(numbers[0], numbers[0] + 20))

    def test_since(self, shared: Site) -> None:
        assert shared.kubectl("logs", BOX, "-c", "app.log", "--since", "1h").startswith("line 1\n")

    def test_a_container_that_is_not_there(self, shared: Site) -> None:
        missing = shared.run_kubectl("logs", BOX, "-c", "nothing")
        assert missing.returncode == 1
        assert b"nothing" in missing.stderr


class TestCopy:
    @pytest.mark.timeout(120)
    def test_both_ways(self, shared: Site) -> None:
        content = os.urandom(20 * MIB)
        (shared.folder / "there.bin").write_bytes(content)
        away = shared.folder / "away"
        away.mkdir(exist_ok=True)
        shared.kubectl("cp", "there.bin", f"{BOX}:{away}/it.bin", timeout_s=60)
        assert hashlib.sha256((away / "it.bin").read_bytes()).digest() == hashlib.sha256(content).digest()
        shared.kubectl("cp", f"{BOX}:{away}/it.bin", "back.bin", timeout_s=60)
        assert (shared.folder / "back.bin").read_bytes() == content

    def test_a_folder(self, shared: Site) -> None:
        tree = shared.folder / "tree" / "deep"
        tree.mkdir(parents=True)
        (tree / "a").write_text("a")
        (tree.parent / "b").write_text("b")
        away = shared.folder / "tree-away"
        shared.kubectl("cp", "tree", f"{BOX}:{away}")
        assert (away / "deep" / "a").read_text() == "a"
        assert (away / "b").read_text() == "b"


class TestOther:
    def test_version(self, shared: Site) -> None:
        assert "Server Version" in shared.kubectl("version")

    def test_can_i(self, shared: Site) -> None:
        assert shared.kubectl("auth", "can-i", "get", "nodes").strip() == "yes"
        assert shared.kubectl("auth", "can-i", "create", "pods/exec").strip() == "yes"
        assert shared.run_kubectl("auth", "can-i", "delete", "nodes").stdout.startswith(b"no")

    def test_without_a_certificate(self, shared: Site) -> None:
        refused = shared.run_kubectl(
            "get", "nodes", "--client-certificate=/dev/null", "--client-key=/dev/null", "--username=x", "--password=y"
        )
        assert refused.returncode == 1

    def test_twenty_execs_at_once(self, shared: Site) -> None:
        def echo(number: int) -> str:
            args = ("exec", BOX, "--", "echo", str(number))
            done = shared.run_kubectl(*args)
            # A busy kubectl before 1.34 may read before it has made its streams (kubernetes/kubernetes#131203).
            while b"Unknown stream id" in done.stderr:
                done = shared.run_kubectl(*args)
            return (done.stdout + done.stderr).decode()

        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            assert list(pool.map(echo, range(20))) == [f"{number}\n" for number in range(20)]
