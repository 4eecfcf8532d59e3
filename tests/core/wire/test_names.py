"""tunnel.core.wire.names: of agents, of services, and of services of our own."""

from __future__ import annotations

import pytest

from tunnel.core.wire.names import KUBELET, OLD_KUBELET, as_offered, is_agent_name, is_service_name


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


@pytest.mark.parametrize(
    ("offered", "asked"),
    [
        ([KUBELET, OLD_KUBELET, "printer"], KUBELET),
        ([KUBELET], KUBELET),
        ([OLD_KUBELET], OLD_KUBELET),
        (["printer"], KUBELET),
        ([], KUBELET),
    ],
)
def test_a_service_of_ours_is_asked_for_as_the_peer_calls_it(offered: list[str], asked: str) -> None:
    assert as_offered(KUBELET, offered) == asked


def test_nobody_elses_service_has_a_name_like_ours() -> None:
    assert not is_service_name(KUBELET)
    assert as_offered("printer", ["printer", OLD_KUBELET]) == "printer"
