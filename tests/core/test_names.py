"""Agent names."""

from __future__ import annotations

import pytest

from tunnel.core.names import is_agent_name


@pytest.mark.parametrize("name", ["a", "7", "box-7", "a" * 63, "0a-b"])
def test_names(name: str) -> None:
    assert is_agent_name(name)


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "box.7", "box_7", "a" * 64, "a b", "a\n", "ä", "../x", "$(id)", "a;b", "a" * 10_000]
)
def test_no_names(name: str) -> None:
    assert not is_agent_name(name)
