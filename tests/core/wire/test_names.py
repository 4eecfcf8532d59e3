"""tunnel.core.wire.names: of agents, of services, and of services of our own."""

from __future__ import annotations

import pytest

from tunnel.core.wire.names import (
    KUBELET,
    OLD_KUBELET,
    as_offered,
    close_name,
    is_agent_name,
    is_agent_pattern,
    is_service_name,
    meant,
)


@pytest.mark.parametrize("name", ["a", "7", "box-7", "a" * 63, "0a-b"])
def test_names(name: str) -> None:
    assert is_agent_name(name)


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "box.7", "box_7", "a" * 64, "a b", "a\n", "ä", "../x", "$(id)", "a;b", "a" * 10_000]
)
def test_no_names(name: str) -> None:
    assert not is_agent_name(name)


@pytest.mark.parametrize("pattern", ["*", "shop-*", "*-till", "shop-*-till-*"])
def test_patterns_of_names(pattern: str) -> None:
    assert is_agent_pattern(pattern)


@pytest.mark.parametrize("pattern", ["", "shop-1", "-*", "*-", "Shop-*", "shop.*", "shop-?", "*" * 64])
def test_no_patterns_of_names(pattern: str) -> None:
    assert not is_agent_pattern(pattern)


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


KNOWN = {"box-7", "box-8", "gateway", "lyon-1"}


@pytest.mark.parametrize(
    ("typed", "close"),
    [
        ("box7", "box-7"),
        ("bxo-7", "box-7"),
        ("BOX-8", "box-8"),
        ("box_8", "box-8"),
        ("gatway", "gateway"),
        ("gatewayy", "gateway"),
        ("gateeay", "gateway"),
        ("lion-1", "lyon-1"),
        ("box-77", "box-7"),
        ("lyon-2", "lyon-1"),
        ("other", None),
        ("", None),
        ("x" * 10_000, None),
        ("$(id)\n", None),
    ],
)
def test_what_was_meant(typed: str, close: str | None) -> None:
    assert close_name(typed, KNOWN.__contains__) == close


def test_it_takes_no_longer_among_many_names_and_has_a_bound() -> None:
    asked: list[str] = []

    def unknown(name: str) -> bool:
        asked.append(name)
        return False

    assert close_name("a" * 10_000, unknown) is None
    assert len(asked) < 5000


def test_a_slip_of_the_finger_comes_before_another_box_of_a_row() -> None:
    assert close_name("bpx-7", {"bax-7", "box-7"}.__contains__) in ("bax-7", "box-7")
    assert close_name("box-72", {"box-7", "box-73"}.__contains__) == "box-7"
    assert close_name("bx-7", {"bx-8", "box-7"}.__contains__) == "box-7"


def test_how_it_is_said() -> None:
    assert (meant("box-7"), meant(None)) == (", did you mean box-7?", "")
