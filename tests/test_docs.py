"""The pages: docs/configuration.md names every key that there is, commands are ours, and every block of them is run."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import typing
from pathlib import Path

import pytest

from cloud_server.cli import cli as server
from cloud_server.config import ServerConfig
from edge_agent.cli import cli as agent
from edge_agent.config import AgentConfig
from tests.support.pages import PAGES, TOP, anchors, commands
from tunnel.tool.cli import cli as tool

PAGE = TOP / "docs" / "configuration.md"


def keys(cls: type) -> set[str]:
    """Every key of a configuration class, as `section.key`."""
    hints = typing.get_type_hints(cls)
    found: set[str] = set()
    for field in dataclasses.fields(cls):
        kinds = [hints[field.name], *typing.get_args(hints[field.name])]
        kinds += [one for kind in kinds[1:] for one in typing.get_args(kind)]  # of `bool | list[T]`
        section = next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)
        if section is None or bool in kinds:
            found.add(field.name)
        if section is not None:
            assert isinstance(section, type)
            found |= {f"{field.name}.{key}" for key in keys(section)}
    return found


@pytest.mark.parametrize(("title", "cls"), [("cloud-server.toml", ServerConfig), ("edge-agent.toml", AgentConfig)])
def test_every_key_is_described(title: str, cls: type) -> None:
    section = PAGE.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    described = set(re.findall(r"^\| `([a-z_.]+)` \|", section, re.MULTILINE))
    assert described == keys(cls)


every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(TOP)))

NOT_RUN = {
    "not run: make itself",
    "not run: make demo shows it",
    "not run: installs into the system",
    "not run: builds an image",
    "not run: needs a Kubernetes cluster",
    "not run: needs systemd and root",
    "not run: needs perf and a busy daemon",
}
"""Why a block of commands is only read, not run. A reason that is not here is to be doubted first."""
MAX_NOT_RUN = 34
"""Such blocks; one more needs a better reason than that running it is work."""


def test_every_block_of_commands_is_run_or_says_why_not() -> None:
    found = commands()
    assert [f"{block}: write sh before it, or text" for block in found if not block.language] == []
    others = [block for block in found if not block.marker.startswith("run: ")]
    assert [f"{block}: {block.marker or 'no marker'}" for block in others if block.marker not in NOT_RUN] == []
    assert {block.marker for block in others} == NOT_RUN, "a reason that nobody has is to go"
    assert len(others) <= MAX_NOT_RUN


def test_every_block_that_is_marked_so_is_run() -> None:
    """By the name behind `run: `, which is that of a test of tests/e2e/test_pages.py or of a file."""
    runners = (TOP / "tests/e2e/test_pages.py").read_text()
    for block in commands():
        if (name := block.marker.removeprefix("run: ")) != block.marker:
            assert f'"{name}"' in runners or (name.endswith(".py") and (TOP / name).exists()), f"{block}: {name}"


@every_page
def test_every_fence_is_closed(page: Path) -> None:
    assert len(re.findall(r"^ *```", page.read_text(), re.MULTILINE)) % 2 == 0


def test_commands_are_shell() -> None:
    for block in commands():
        if block.language == "sh":
            checked = subprocess.run(
                ["bash", "-n"], input=block.text, capture_output=True, text=True, timeout=30, check=False
            )
            assert (checked.returncode, checked.stderr) == (0, ""), str(block)


def test_commands_are_ours() -> None:
    """Each `cloud-server`, `edge-agent` or `longline` in a block has a subcommand and options that there are."""
    for block in commands():
        for line in block.text.replace("\\\n", " ").splitlines():
            for program, cli in (("cloud-server", server), ("edge-agent", agent), ("longline", tool)):
                found = re.search(rf"(?:^|[ (/\"'$]){program} ([a-z][a-z-]*)(?: ([a-z]+))?((?: .*)?)$", line)
                if found is None or found[1] not in cli.commands:
                    assert not re.search(rf"(?:^|bin/|in_server ){program} [a-z]", line), f"{block}: {line}"
                    continue
                command = cli.commands[found[1]]
                command = getattr(command, "commands", {}).get(found[2], command)
                known = {option for parameter in command.params for option in parameter.opts}
                own = re.split(r" [|>]+ | # |<<<|' ", found[3])[0]
                assert set(re.findall(r"(?<= )--[a-z-]+", own)) <= known, f"{block}: {line}"


@every_page
def test_files_of_the_repository_are_there(page: Path) -> None:
    named = set(re.findall(r"\b(?:deploy|packaging|docs)/[\w./-]*\w", page.read_text()))
    assert [name for name in named if not (TOP / name).exists()] == []


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", page.read_text()):
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), anchor


def test_every_decision_is_in_the_list_and_says_what_was_decided() -> None:
    folder = TOP / "docs" / "decisions"
    listed = set(re.findall(r"\]\((\d{4}-[\w-]+\.md)\)", (folder / "README.md").read_text()))
    assert listed == {path.name for path in folder.iterdir()} - {"README.md"}
    for name in listed:
        text = (folder / name).read_text()
        assert text.startswith("# ")
        assert "\n## Decision" in text, name
