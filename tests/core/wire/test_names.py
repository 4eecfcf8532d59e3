"""Agent names."""

from __future__ import annotations

import pytest

from tunnel.core.wire.names import is_agent_name, is_service_name


@pytest.mark.parametrize("name", ["a", "7", "box-7", "a" * 63, "0a-b"])
def test_names(name: str) -> None:
    assert is_agent_name(name)


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "box.7", "box_7", "a" * 64, "a b", "a\n", "ä", "../x", "$(id)", "a;b", "a" * 10_000]
)
def test_no_names(name: str) -> None:
    assert not is_agent_name(name)


def test_a_service_is_no_port() -> None:
    assert is_service_name("printer-2")
    assert is_service_name("2nd")
    assert not is_service_name("631")
    assert not is_service_name("Printer")
