"""`/var/log/sp ace.log` in `files` was good for `check`, and then there was no container and no line of it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.compat.boxes import one_box
from tests.support.processes import command_result
from tests.support.tunnel import BOX
from tests.support.waits import Deadline

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
NAMES = {"sp ace.log": "sp-ace.log", "größe.log": "gr-e.log", "日本": "file", ".hidden": "hidden", "host": "host-2"}


def test_every_file_is_there_under_a_name_that_can_be_typed(tmp_path: Path) -> None:
    for name in NAMES:
        (tmp_path / name).write_text(f"of {name}\n")
    with one_box({"files": [str(tmp_path / name) for name in NAMES]}) as box:
        deadline = Deadline(10)
        while "running" not in box.state("host-2"):
            assert not deadline.passed(), "the box does not say what it offers"
            time.sleep(0.05)
        for name, container in NAMES.items():
            assert box.kubectl("logs", BOX, "-c", container) == f"of {name}\n"


@pytest.mark.parametrize(
    ("host", "fault"),
    [
        ({"files": ["/var/log/*.log"]}, "is a pattern: name each file"),
        ({"files": ["/"]}, "is a folder: name a file"),
        ({"files": ["/var/log/a\u0000b"]}, "has characters that cannot be shown"),
        ({"units": ["getty@.service"]}, "is a template: name an instance"),
    ],
)
def test_what_can_never_be_read_is_a_fault(host: dict[str, list[str]], fault: str) -> None:
    with one_box(host, start=False) as box:
        checked = command_result("edge-agent", "check", "--config", str(box.box.config))
        assert checked.returncode == 2
        assert fault in checked.stderr


def test_what_is_not_there_yet_is_a_warning(tmp_path: Path) -> None:
    with one_box({"files": [str(tmp_path / "later.log"), str(tmp_path)]}, start=False) as box:
        checked = command_result("edge-agent", "check", "--config", str(box.box.config))
    assert (checked.returncode, checked.stdout.endswith(": good\n")) == (0, True)
    assert "host.files: the log file" in checked.stderr
    assert "is no regular file" in checked.stderr
