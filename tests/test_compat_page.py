"""docs/compat.md: each row names the test that shows it, and each reported case has a row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TOP = Path(__file__).parent.parent
PAGE = TOP / "docs" / "compat.md"
_LINK = re.compile(r"\]\(\.\./(tests/[^)#]+)\)")


def rows() -> list[str]:
    """The rows of every table, without heads and rulers."""
    lines = PAGE.read_text().splitlines()
    tables = [index for index, line in enumerate(lines) if re.match(r"\|[-| ]+\|$", line)]
    heads = {index - 1 for index in tables}
    return [line for index, line in enumerate(lines) if line.startswith("|") and index not in heads.union(tables)]


def test_the_page_has_rows() -> None:
    assert len(rows()) > 30


@pytest.mark.parametrize("row", rows())
def test_a_row_names_a_test_that_exists(row: str) -> None:
    linked = _LINK.findall(row)
    assert linked, "no test shows it"
    assert [path for path in linked if not (TOP / path).is_file()] == []


def test_every_reported_case_has_a_row() -> None:
    linked = {path for row in rows() for path in _LINK.findall(row)}
    cases = {str(path.relative_to(TOP)) for path in (TOP / "tests" / "compat").rglob("test_*.py")}
    assert cases - linked == set()
