from __future__ import annotations

from pathlib import Path

import pytest

from tests import arch_check


def _function(lines: int, docstring_lines: int = 0) -> str:
    docstring = '    """' + "word\n" * (docstring_lines - 1) + 'word"""\n' if docstring_lines else ""
    return "def f():\n" + docstring + "    pass\n" * (lines - 1)


@pytest.mark.parametrize(
    ("lines", "fatal"),
    [(400, []), (401, [False]), (600, [False]), (601, [True])],
)
def test_file_size_warns_then_fails(lines: int, fatal: list[bool]) -> None:
    assert [finding.fatal for finding in arch_check.check_sizes("x.py", "pass\n" * lines)] == fatal


def test_function_size_leaves_out_the_docstring() -> None:
    assert list(arch_check.check_sizes("x.py", _function(70))) == []
    assert list(arch_check.check_sizes("x.py", _function(70, docstring_lines=9))) == []
    (finding,) = arch_check.check_sizes("x.py", _function(71))
    assert finding.fatal
    assert finding.where == "x.py:1"


def test_a_source_without_its_test_is_a_warning(tmp_path: Path) -> None:
    for name in (
        "tunnel/core/path/pacing.py",
        "tunnel/core/wire/frames.py",
        "edge_agent/cli.py",
        "tests/core/path/test_pacing.py",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "tunnel/core/__init__.py").touch()

    findings = arch_check.check(tmp_path, ["tunnel", "edge_agent", "tests"])

    assert [(finding.where, finding.text, finding.fatal) for finding in findings] == [
        ("edge_agent/cli.py", "no tests/edge_agent/test_cli.py", False),
        ("tunnel/core/wire/frames.py", "no tests/core/wire/test_frames.py", False),
    ]


def test_generated_code_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "protos").mkdir()
    (tmp_path / "protos" / "tunnel_pb2.py").write_text("pass\n" * 5000)

    assert arch_check.check(tmp_path, ["protos"]) == []
