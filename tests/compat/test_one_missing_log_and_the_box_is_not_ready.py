"""A log file that is not there, or a unit that failed, made the box not ready, and clients waited for ever.

With it `logs` of a unit that does not exist, which was an empty log and rc 0.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compat.boxes import ME, OneBox, one_box
from tests.support.processes import BIN, command_result
from tests.support.tunnel import BOX
from tests.support.waits import Deadline

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
SYSTEMCTL = """#!/bin/sh
while [ "$1" != -- ]; do shift; done; shift
for unit; do
    case $unit in
        failed*) printf 'LoadState=loaded\\nActiveState=failed\\nExecMainCode=1\\nExecMainStatus=3\\n\\n' ;;
        none*) printf 'LoadState=not-found\\nActiveState=inactive\\n\\n' ;;
        *) printf 'LoadState=loaded\\nActiveState=active\\n\\n' ;;
    esac
done
"""
JOURNALCTL = """#!/bin/sh
case "$*" in *--unit=good.service*|*--unit=none-any-more.service*) echo a line of it ;; esac
"""
UNITS = ["good.service", "failed.service", "none.service", "none-any-more.service"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneBox]:
    folder: Path = tmp_path_factory.mktemp("missing")
    for name, script in (("systemctl", SYSTEMCTL), ("journalctl", JOURNALCTL)):
        (folder / name).write_text(script)
        (folder / name).chmod(0o755)
    path = {"PATH": f"{folder}:{BIN}:{os.environ['PATH']}"}
    host = {"exec": True, "user": ME, "units": UNITS, "files": [str(folder / "none.log")]}
    with one_box(host, environment=path) as box:
        deadline = Deadline(10)
        while "running" not in box.state("host"):
            assert not deadline.passed(), "the box does not say what it offers"
            time.sleep(0.05)
        yield box


def test_who_waits_for_the_box_gets_it(made: OneBox) -> None:
    made.kubectl("wait", "--for=condition=Ready", f"pod/{BOX}", f"node/{BOX}", "--timeout=1s")
    assert made.kubectl("exec", BOX, "--", "echo", "hello") == "hello\n"


def test_what_is_missing_is_seen(made: OneBox) -> None:
    assert made.kubectl("get", "pod", BOX, "--no-headers").split()[1] == "2/6"
    made.kubectl("wait", "--for=condition=SourcesMissing", f"pod/{BOX}", f"node/{BOX}", "--timeout=10s")
    described = made.kubectl("describe", "node", BOX)
    (line,) = [line for line in described.splitlines() if "SourcesMissing" in line]
    assert "failed.service: the unit failed with exit code 3; none.service: systemd knows no such unit" in line
    conditions = {each["type"]: each for each in made.pod()["status"]["conditions"]}
    assert "none.log" in conditions["ContainersReady"]["message"]


def test_a_unit_that_does_not_exist_is_not_found(made: OneBox) -> None:
    for options in ((), ("-f",), ("--tail=5", "--timestamps")):
        refused = made.run_kubectl("logs", BOX, "-c", "none.service", *options)
        assert refused.returncode == 1
        assert b"(NotFound)" in refused.stderr
        assert b"systemd knows no unit none.service" in refused.stderr


def test_what_the_journal_still_has_of_one_is_shown(made: OneBox) -> None:
    assert made.kubectl("logs", BOX, "-c", "none-any-more.service") == "a line of it\n"
    assert made.kubectl("logs", BOX, "-c", "good.service") == "a line of it\n"
    assert made.kubectl("logs", BOX, "-c", "failed.service") == ""


def test_check_warns_of_it_where_systemd_can_be_asked(made: OneBox) -> None:
    systemd = made.box.agent.environment["PATH"].partition(":")[0]
    argv = ["edge-agent", "check", "--config", str(made.box.config)]
    warned = command_result(*argv, prefix=["env", f"PATH={systemd}:{os.environ['PATH']}"])
    assert (warned.returncode, warned.stdout.endswith(": good\n")) == (0, True)
    assert "host.units: none.service: systemd knows no such unit on this box" in warned.stderr
    silent = command_result(*argv, prefix=["env", "PATH=/nowhere"])
    assert silent.returncode == 0
    assert "none.service" not in silent.stderr
