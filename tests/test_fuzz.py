"""A few inputs for every target with every run of the tests, and that the fuzzer would find what it is there for."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from tests.fuzz import __main__ as command
from tests.fuzz.engine import Found, Target, fuzz

TARGETS = command.targets()
PAGE = Path(__file__).parent.parent / "docs" / "fuzzing.md"


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.may_block("files are parsed in the fuzzer's own loop")
def test_few_inputs_find_nothing(name: str) -> None:
    with structlog.testing.capture_logs():
        fuzzer = fuzz(TARGETS[name], 0, 1, fewest=len(TARGETS[name].seeds) + 5)
    assert fuzzer.reached


def _nested(data: bytes) -> None:
    if data.startswith(b"ab"):
        int(data[2:4])


def test_what_escapes_is_found_and_made_small(capsys: pytest.CaptureFixture[str]) -> None:
    target = Target(name="planted", seeds=[b"ab12 and much more"], run=_nested)
    with pytest.raises(Found, match=r"^failure in planted: ValueError at ") as caught:
        fuzz(target, 10, 1)
    assert len(caught.value.data) <= 4
    assert caught.value.data.hex() in str(caught.value)


def test_what_is_allowed_is_no_failure() -> None:
    fuzz(Target(name="planted", seeds=[b"ab12"], run=_nested, allowed=(ValueError,)), 0, 1, fewest=200)


def test_a_failure_is_the_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    target = Target(name="planted", seeds=[b"ab12"], run=_nested)
    monkeypatch.setattr(command, "targets", lambda: {"planted": target})
    monkeypatch.setattr(structlog, "configure", lambda **_: None)
    assert command.main(["--seconds", "10", "--seed", "1", "planted"]) == 1
    assert "bytes.fromhex(" in capsys.readouterr().err


def test_the_page_lists_every_target_and_no_other() -> None:
    rows = [line.split("|")[1].strip().strip("`") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted([command.PACKETS, *TARGETS])
