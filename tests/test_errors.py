"""The error codes: each has a page, each is used, and no code is used for two causes."""

from __future__ import annotations

import ast
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests import error_pages
from tunnel.aio.process.explain import page, pages
from tunnel.core.wire import faults
from tunnel.core.wire.faults import FAULTS, Fault

TOP = Path(__file__).parent.parent
SOURCES = [path for name in ("tunnel", "cloud_server", "edge_agent") for path in sorted((TOP / name).rglob("*.py"))]
NAMES = {name: fault for name, fault in vars(faults).items() if isinstance(fault, Fault)}
TABLE = TOP / "tunnel/core/wire/faults.py"


@cache
def uses() -> Counter[str]:
    """How often each fault is named in the sources, its definition and imports left out."""
    found: Counter[str] = Counter()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(getattr(node, "ctx", None), ast.Load):
                continue
            name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
            if name in NAMES:
                found[name] += 1
    return found


def test_the_pages_are_those_of_the_table() -> None:
    there = {path.name: path.read_text() for path in error_pages.FOLDER.iterdir()}
    wanted = error_pages.files()
    assert sorted(there) == sorted(wanted)
    assert [name for name, text in wanted.items() if there[name] != text] == [], "run `make errors`"


def test_every_code_is_used() -> None:
    assert sorted(set(NAMES) - set(uses())) == []


def test_sources_name_codes_by_the_table_only() -> None:
    """A code that is spelled out somewhere would stay behind when the table changes."""
    spelled = [
        f"{path.relative_to(TOP)}:{node.lineno}"
        for path in SOURCES
        if path != TABLE
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.fullmatch("LL[0-9]{4}", node.value)
    ]
    assert spelled == []


def test_a_page_says_cause_evidence_and_remedy_in_sentences() -> None:
    for code in FAULTS:
        text = page(code)
        assert text is not None
        sections = re.split(r"^## .*\n", text, flags=re.MULTILINE)[1:]
        assert len(sections) == 3, code
        for section in sections:
            assert len(section.split()) >= 5, code
            assert section.strip()[-1] in ".?", code


def test_no_two_pages_say_the_same() -> None:
    said = Counter(text.split("\n", 1)[1].split("## Remedy")[0] for text in pages().values())
    assert [text for text, count in said.items() if count > 1] == []


def test_links_between_pages_and_to_others_lead_somewhere() -> None:
    for path in error_pages.FOLDER.iterdir():
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.mark.parametrize("program", ["cloud-server", "edge-agent", "longline"])
def test_every_command_explains_offline(program: str) -> None:
    from cloud_server.cli import cli as server
    from edge_agent.cli import cli as agent
    from tunnel.tool.cli import cli as tool

    cli = {"cloud-server": server, "edge-agent": agent, "longline": tool}[program]
    for spelled in ("LL2012", "ll2012", "[LL2012]:"):
        assert CliRunner().invoke(cli, ["explain", spelled]).output == pages()["LL2012"]
    unknown = CliRunner().invoke(cli, ["explain", "LL9999"])
    assert (unknown.exit_code, unknown.output) == (
        1,
        "Error [LL1029]: LL9999 is no error code: it is written like LL6001\n",
    )


def test_no_message_says_a_time_with_digits_that_nobody_needs() -> None:
    """`no answer within 9.99887 s`: what is left of a deadline is rounded for people, by `spoken_s`."""
    raw = re.compile(r"\{[^{}]*(?<!:\.0f)(?<!:\.1f)\} s\b")
    found = [
        f"{path.relative_to(TOP)}:{number}"
        for path in SOURCES
        if path.name != "spoken.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if raw.search(line)
    ]
    assert found == []


def test_every_line_that_should_worry_somebody_names_its_cause() -> None:
    """Lines of level warning and above: by the name of the method, or of the variable that stands for it (`level`)."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            if re.fullmatch(r"(_log|log|self\._log)\.(warning|error|exception|critical)|level", name):
                named = {keyword.arg for keyword in node.keywords}
                if "code" not in named and node.args:
                    found.append(f"{path.relative_to(TOP)}:{node.lineno}")
    assert found == []
