"""Log viewers always ask for timestamps and a time to begin at, and for all containers: files and the host said 400.

k9s and stern do so at each log that they open, and stern asks no container that has no id.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.boxes import ME, OneBox, one_box
from tests.e2e.cluster import build
from tests.support.tunnel import BOX
from tests.support.waits import Deadline

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
TIMED = (
    '2026-01-31T12:00:00Z first\n  and more of it\n192.0.2.1 - - [31/Jan/2026:12:00:05 +0000] "GET / HTTP/1.1" 200 5\n'
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneBox]:
    folder: Path = tmp_path_factory.mktemp("logs")
    timed, plain = folder / "timed.log", folder / "plain.log"
    timed.write_text(TIMED)
    plain.write_text("one\ntwo\n")
    with one_box({"exec": True, "user": ME, "files": [str(timed), str(plain)]}) as box:
        deadline = Deadline(10)
        while "running" not in box.state("plain.log"):
            assert not deadline.passed(), "the box does not say what it offers"
            time.sleep(0.05)
        yield box


def test_all_containers(made: OneBox) -> None:
    shown = made.kubectl("logs", BOX, "--all-containers", "--prefix", "--timestamps", "--since=1000000h")
    lines = [re.sub(r"^\[pod/box-7/|\]", "", line).split(" ", 2) for line in shown.splitlines()]
    assert {name for name, _, _ in lines} == {"timed.log", "plain.log"}
    assert [time for name, time, _ in lines if name == "timed.log"] == [
        "2026-01-31T12:00:00.000000Z",
        "2026-01-31T12:00:00.000000Z",
        "2026-01-31T12:00:05.000000Z",
    ]


def test_the_host_has_an_empty_log(made: OneBox) -> None:
    assert made.kubectl("logs", BOX) == ""
    assert made.kubectl("logs", BOX, "-c", "host", "--timestamps", "--since=1m", "--tail=100", "--limit-bytes=9") == ""


def test_since_goes_by_what_lines_tell_else_by_the_files_time(made: OneBox) -> None:
    assert made.kubectl("logs", BOX, "-c", "timed.log", "--since-time=2026-01-31T12:00:03Z").count("\n") == 1
    assert made.kubectl("logs", BOX, "-c", "plain.log", "--since=1h") == "one\ntwo\n"
    assert made.kubectl("logs", BOX, "-c", "plain.log", "--since-time=2100-01-01T00:00:00Z") == ""


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("container=plain.log&stream=Stdout", "one\ntwo\n"),
        ("container=plain.log&stream=Stderr", ""),
        ("container=plain.log&stream=All&insecureSkipTLSVerifyBackend=true&pretty=true", "one\ntwo\n"),
        ("container=plain.log&sinceSeconds=3600&tailLines=1&limitBytes=2", "tw"),
    ],
)
def test_every_option_of_a_kubelet(made: OneBox, query: str, body: str) -> None:
    assert made.kubectl("get", "--raw", f"/api/v1/namespaces/default/pods/{BOX}/log?{query}") == body


def test_a_previous_run_is_refused_as_a_kubelet_does(made: OneBox) -> None:
    for container in ("host", "plain.log"):
        refused = made.run_kubectl("logs", BOX, "-c", container, "--previous")
        assert refused.returncode == 1
        assert b"(BadRequest)" in refused.stderr


def test_stern_follows_what_is_there_and_what_comes(made: OneBox) -> None:
    if reason := build.why_not():
        pytest.skip(reason)
    program = build.stern()
    plain = Path(made.box.config.read_text().partition("files = ")[2].split('"')[3])
    argv = [str(program), ".", "--color=never", "--template={{.ContainerName}} {{.Message}}\n", "--since=1000000h"]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, env=made.env, cwd=made.folder, stdout=pipe, stderr=pipe, text=True) as following:
        try:
            assert following.stdout is not None
            there = {following.stdout.readline().strip() for _ in range(5)}
            assert {"plain.log one", "plain.log two", f"timed.log {TIMED.splitlines()[0]}"} <= there
            with plain.open("a") as file:
                file.write("three\n")
            assert following.stdout.readline() == "plain.log three\n"
        finally:
            following.kill()
