"""docs/configuration.md names every key that there is, and no other."""

from __future__ import annotations

import dataclasses
import re
import typing
from pathlib import Path

import pytest

from cloud_server.config import ServerConfig
from edge_agent.config import AgentConfig

PAGE = Path(__file__).parent.parent / "docs" / "configuration.md"


def keys(cls: type) -> set[str]:
    """Every key of a configuration class, as `section.key`."""
    hints = typing.get_type_hints(cls)
    found: set[str] = set()
    for field in dataclasses.fields(cls):
        kinds = [hints[field.name], *typing.get_args(hints[field.name])]
        section = next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)
        if section is None:
            found.add(field.name)
        else:
            assert isinstance(section, type)
            found |= {f"{field.name}.{key}" for key in keys(section)}
    return found


@pytest.mark.parametrize(("title", "cls"), [("cloud-server.toml", ServerConfig), ("edge-agent.toml", AgentConfig)])
def test_every_key_is_described(title: str, cls: type) -> None:
    section = PAGE.read_text().split(f"## {title}\n")[1].split("\n## ")[0]
    described = set(re.findall(r"^\| `([a-z_.]+)` \|", section, re.MULTILINE))
    assert described == keys(cls)
