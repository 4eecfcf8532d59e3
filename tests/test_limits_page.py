"""docs/limits.md: it is what the code says, and leaves no setting out."""

from __future__ import annotations

import dataclasses

import pytest

from cloud_server.limits_config import LimitsConfig as ServerLimits
from edge_agent.config import LimitsConfig as AgentLimits
from tests.limits_page import AGENT, AGENT_AT, CONSTANTS, PAGE, SERVER, SERVER_AT, At, docstring, text


def test_the_page_is_that_of_the_code() -> None:
    assert PAGE.read_text() == text(), "run `make limits`"


@pytest.mark.parametrize(("section", "at"), [(ServerLimits, SERVER_AT), (AgentLimits, AGENT_AT)])
def test_it_has_each_setting_and_no_other(section: type[ServerLimits | AgentLimits], at: dict[str, At]) -> None:
    assert {field.name for field in dataclasses.fields(section)} == at.keys()


def test_each_limit_says_what_it_is() -> None:
    """A setting "at once" belongs to the rate above it."""
    silent = [
        name for name in SERVER_AT if not name.endswith("_at_once") and not _told(f"{SERVER}.{name}", SERVER_AT[name])
    ]
    silent += [name for name in AGENT_AT if not _told(f"{AGENT}.{name}", AGENT_AT[name])]
    silent += [name for name in CONSTANTS if not docstring(name)]
    assert silent == []


def _told(name: str, at: At) -> str:
    return docstring(name) or (docstring(at.why) if at.why else "")
