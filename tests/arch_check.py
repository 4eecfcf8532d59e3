"""The size check behind `make arch`: files and functions that have outgrown one sitting, and sources without tests.

Who may import whom is not checked here: that is import-linter's part, in pyproject.toml.
Run as `python -m tests.arch_check DIRECTORY...` from the top of the repository; exits 1 when a hard limit is passed.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SOFT_FILE_LINES = 400
HARD_FILE_LINES = 600
HARD_FUNCTION_LINES = 70

GENERATED = ("_pb2.py", "_pb2.pyi")
PACKAGES_WITH_TESTS = ("tunnel", "edge_agent", "cloud_server")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is too large or has no test."""

    where: str
    text: str
    fatal: bool


def sources(top: Path, directories: list[str]) -> Iterator[Path]:
    """All Python files written by people below `directories`, relative to `top`."""
    for directory in directories:
        for path in sorted((top / directory).rglob("*.py")):
            if not path.name.endswith(GENERATED):
                yield path.relative_to(top)


def check_sizes(name: str, source: str) -> Iterator[Finding]:
    """What in this file is longer than it may be. A function's docstring is not counted, its decorators are."""
    lines = source.count("\n")
    if lines > SOFT_FILE_LINES:
        limit = f"{HARD_FILE_LINES} is the limit" if lines > HARD_FILE_LINES else f"aim below {SOFT_FILE_LINES}"
        yield Finding(where=name, text=f"{lines} lines; {limit}", fatal=lines > HARD_FILE_LINES)
    for node in ast.walk(ast.parse(source, name)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = _function_lines(node)
            if length > HARD_FUNCTION_LINES:
                text = f"{node.name} has {length} lines; {HARD_FUNCTION_LINES} fit"
                yield Finding(where=f"{name}:{node.lineno}", text=text, fatal=True)


def _function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    length = (node.end_lineno or node.lineno) - first + 1
    if ast.get_docstring(node) is not None:
        docstring = node.body[0]
        length -= (docstring.end_lineno or docstring.lineno) - docstring.lineno + 1
    return length


def check_mirrored(top: Path, path: Path) -> Iterator[Finding]:
    """A warning when `tunnel/core/path/pacing.py` has no `tests/core/path/test_pacing.py`."""
    if path.parts[0] not in PACKAGES_WITH_TESTS or path.name.startswith("__"):
        return
    # `tunnel` itself is no level in tests: its two layers stand there beside the daemons.
    folders = path.parts[1:-1] if path.parts[0] == "tunnel" else path.parts[:-1]
    test = Path("tests", *folders, f"test_{path.stem.lstrip('_')}.py")
    if not (top / test).exists():
        yield Finding(where=str(path), text=f"no {test}", fatal=False)


def check(top: Path, directories: list[str]) -> list[Finding]:
    """Everything found, fatal first."""
    findings: list[Finding] = []
    for path in sources(top, directories):
        text = (top / path).read_text(encoding="utf-8")
        findings += check_sizes(str(path), text)
        findings += check_mirrored(top, path)
    return sorted(findings, key=lambda finding: (not finding.fatal, finding.where))


def main(directories: list[str]) -> int:
    """Print the findings; 1 when one is fatal."""
    findings = check(Path.cwd(), directories)
    for finding in findings:
        print(f"{'error' if finding.fatal else 'warning'}: {finding.where}: {finding.text}")
    return int(any(finding.fatal for finding in findings))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
