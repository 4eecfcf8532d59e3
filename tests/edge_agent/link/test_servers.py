"""Whose turn it is, and what is known of each."""

from __future__ import annotations

from edge_agent.link.servers import Servers
from tunnel.core.wire.faults import SERVER_UNREACHABLE


def test_the_next_ones_turn_comes_after_two_failures_or_one_for_good() -> None:
    servers = Servers(["a:1", "b:1"])
    servers.failed(for_good=False, sticks=False)
    assert servers.current == "a:1"
    servers.failed(for_good=False, sticks=True)
    assert servers.current == "a:1"
    servers.failed(for_good=False, sticks=False)
    assert servers.current == "b:1"
    servers.failed(for_good=True, sticks=False)
    assert servers.current == "a:1"
    servers.failed(for_good=False, sticks=False)
    servers.held()
    servers.failed(for_good=False, sticks=False)
    assert servers.current == "a:1"


def test_how_each_fares_is_kept_over_another_list() -> None:
    servers = Servers(["a:1", "b:1"])
    servers.down("a:1", "connection refused", SERVER_UNREACHABLE)
    since = servers.states()[0].since
    servers.down("a:1", "no route to host", SERVER_UNREACHABLE)
    servers.next()
    servers.up("b:1")
    assert servers.replace(["c:1", "b:1", "a:1"])
    assert servers.current == "b:1"
    assert [(one.address, one.state, one.reason) for one in servers.states()] == [
        ("c:1", "untried", ""), ("b:1", "up", ""), ("a:1", "down", "no route to host"),
    ]  # fmt: skip
    assert servers.states()[2].since == since
    assert not servers.replace(["c:1", "a:1"])
    assert servers.current == "c:1"
