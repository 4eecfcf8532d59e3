"""docs/security.md: every test that it names is there, and each threat has one."""

from __future__ import annotations

import ast
import re
from functools import cache

import pytest

from tests.support.pages import TOP

PAGE = TOP / "docs" / "security.md"
INTRODUCTION, *SECTIONS = PAGE.read_text().split("\n## ")
*THREATS, LEFT_OUT = SECTIONS
PARTS = ("**They get**", "**What stops them**", "**What does not**", "**Shown by**")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::([\w:]+)`")

of_each_threat = pytest.mark.parametrize("threat", THREATS, ids=lambda threat: threat.partition("\n")[0])


@cache
def known_in(path: str) -> frozenset[str]:
    """Returns the tests of a file, those of a class as `Class::name`."""
    if not (TOP / path).is_file():
        return frozenset()
    body = ast.parse((TOP / path).read_text()).body
    classes = [node for node in body if isinstance(node, ast.ClassDef)]
    return frozenset(_functions(body) | {f"{one.name}::{name}" for one in classes for name in _functions(one.body)})


def _functions(body: list[ast.stmt]) -> set[str]:
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@of_each_threat
def test_each_threat_says_what_they_get_what_stops_them_what_does_not_and_what_shows_it(threat: str) -> None:
    assert [part for part in PARTS if threat.count(part) != 1] == []
    shown = threat.partition("**Shown by**")[2]
    named = NAMED.findall(shown)
    assert len(named) == shown.count("::") - sum(name.count("::") for _, name in named) >= 2
    assert [f"{path}::{name}" for path, name in named if name not in known_in(path)] == []


def test_a_test_that_is_gone_would_be_seen() -> None:
    assert "test_a_test_that_is_gone_would_be_seen" in known_in("tests/test_security_page.py")
    assert "test_of_old" not in known_in("tests/test_security_page.py")
    assert known_in("tests/test_of_old.py") == frozenset()


def test_what_is_left_out_is_said_with_its_reason() -> None:
    assert LEFT_OUT.startswith("Left out on purpose\n")
    rows = re.findall(r"^\| (?!what|---)(.+?) \| (.+) \|$", LEFT_OUT, re.MULTILINE)
    assert len(rows) >= 5
    assert "a second person's approval" in [what for what, _ in rows]


ATTACKS = TOP / "tests" / "attacks"
ROWS = [row for row in (ATTACKS / "README.md").read_text().splitlines() if re.match(r"\| (?!what|\|)[^-]", row)]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.partition("`")[0].strip("| ")[:60])
def test_each_attack_has_a_test_that_is_there(row: str) -> None:
    named = NAMED.findall(row)
    assert len(named) == row.count("::") >= 1
    assert [f"{path}::{name}" for path, name in named if name not in known_in(path)] == []


def test_each_test_of_an_attack_is_in_a_table() -> None:
    told = {name for row in ROWS for name in NAMED.findall(row)}
    there = {
        (f"tests/attacks/{path.name}", name)
        for path in ATTACKS.glob("test_*.py")
        for name in known_in(f"tests/attacks/{path.name}")
        if name.startswith("test_")
    }
    assert there - told == set()
    assert [int(row[2:4]) for row in ROWS if row[2:4].strip().isdigit()] == list(range(1, 23))
