"""One log file on a network file system that is gone stopped every exec after 75 s, and the agent's start and end.

Reported of kubelets, whose volumes hang (kubernetes/kubernetes#31272).
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.boxes import ME, OneBox, one_box
from tests.support.hanging_mount import hanging_mount, missing_for_hanging_mounts
from tests.support.tunnel import BOX
from tests.support.waits import Deadline, sooner_than

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(180),
    pytest.mark.skipif(bool(missing_for_hanging_mounts()), reason=missing_for_hanging_mounts()),
]
HANGS = [f"gone-{number}.log" for number in range(12)]
"""More files than a pool of threads on two cores has room for, twice over."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneBox]:
    folder: Path = tmp_path_factory.mktemp("hangs")
    good = folder / "good.log"
    good.write_text("one\ntwo\n")
    (folder / "mount").mkdir()
    with hanging_mount(folder / "mount") as mount:
        files = [*(str(mount / name) for name in HANGS), str(good)]
        with one_box({"exec": True, "user": ME, "files": files}) as box:
            yield box


def test_the_agent_starts_and_only_these_containers_say_so(made: OneBox) -> None:
    deadline = Deadline(30)
    while not made.state(HANGS[0]) or made.state(HANGS[0]).get("waiting", {}).get("reason") == "NotKnown":
        assert not deadline.passed(), "the pod is not known"
        time.sleep(0.2)
    states = {status["name"]: status["state"] for status in made.pod()["status"]["containerStatuses"]}
    assert {name for name, state in states.items() if "running" in state} == {"host", "good.log"}
    assert {states[name]["waiting"]["reason"] for name in HANGS} == {"FileNotAnswering"}
    made.kubectl("wait", "--for=condition=Ready", f"pod/{BOX}", f"node/{BOX}", "--timeout=1s")


def test_nothing_else_waits(made: OneBox) -> None:
    for _ in range(2):
        for name in HANGS:
            refused = made.run_kubectl("logs", BOX, "-c", name)
            assert refused.returncode == 1
            assert b"does not answer: see to the file system" in refused.stderr
        with sooner_than(10, "an exec"):
            assert made.kubectl("exec", BOX, "--", "echo", "hello") == "hello\n"
        assert made.kubectl("logs", BOX, "-c", "good.log") == "one\ntwo\n"


def test_a_program_on_it_is_that_commands_matter(made: OneBox) -> None:
    mount = made.box.config.read_text().partition('files = ["')[2].partition("/gone")[0]
    hung = made.run_kubectl("exec", BOX, "--", f"{mount}/program", timeout_s=60)
    assert hung.returncode == 126
    assert b"not started within 10 s: a file system does not answer" in hung.stderr
    assert made.kubectl("exec", BOX, "--", "echo", "hello") == "hello\n"


def test_the_agent_ends_when_told(made: OneBox) -> None:
    with sooner_than(15, "the end"):
        assert made.box.agent.stop(20) == 0
    with sooner_than(15, "a start"):
        made.cluster.start_box(BOX)
