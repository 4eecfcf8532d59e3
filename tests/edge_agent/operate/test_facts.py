"""What the box tells of itself: one fact of a topic, since when, until when, and no more than the wire takes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from edge_agent.operate import facts as module
from edge_agent.operate.facts import BoxFact, Facts, on_the_wire
from protos import tunnel_pb2
from tunnel.core.wire.faults import CLOCK_WRONG, PART_DOWN, SERVER_NAME_NOT_FOUND
from tunnel.core.wire.handshake import decode_node
from tunnel.core.wire.limits import MAX_FACT_TEXT_BYTES, MAX_FACTS


def test_a_topic_has_one_fact_and_a_change_is_told_once() -> None:
    told: list[int] = []
    facts = Facts(lambda: told.append(1))
    facts.set("clock", CLOCK_WRONG, "an hour ahead")
    (first,) = facts.current()
    facts.set("clock", CLOCK_WRONG, "an hour ahead")
    facts.set("clock", CLOCK_WRONG, "two hours ahead")
    (fact,) = facts.current()
    assert (fact.text, fact.since, fact.code) == ("two hours ahead", first.since, "LL2018")
    assert len(told) == 2
    facts.clear("clock")
    facts.clear("clock")
    facts.clear("never")
    assert len(told) == 3
    assert facts.current() == []
    assert facts.all()[0].until is not None
    facts.set("clock", CLOCK_WRONG, "two hours ahead")
    assert facts.all()[0].since > first.since


def test_what_is_over_is_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = Facts()
    facts.was("link", SERVER_NAME_NOT_FOUND, "no link for 9 s", datetime.now(UTC))
    assert len(facts.all()) == 1
    monkeypatch.setattr(module, "KEPT_FOR", timedelta(0))
    assert facts.all() == []


def test_a_group_is_made_what_it_is_now() -> None:
    facts = Facts()
    facts.set("clock", CLOCK_WRONG, "ahead")
    facts.only("part:", {"a": (PART_DOWN, "a is down"), "b": (PART_DOWN, "b is down")})
    facts.only("part:", {"b": (PART_DOWN, "b is down")})
    assert [fact.text for fact in facts.current()] == ["b is down", "ahead"]


def test_the_wire_takes_whatever_is_told() -> None:
    many = [
        BoxFact(code="LL6011", text="ä" * 1000, since=datetime.now(UTC), until=datetime.now(UTC) if odd % 2 else None)
        for odd in range(MAX_FACTS + 5)
    ]
    node = decode_node(tunnel_pb2.Node(facts=on_the_wire(many)).SerializeToString())
    assert len(node.facts) == MAX_FACTS
    assert len(node.facts[0].text.encode()) <= MAX_FACT_TEXT_BYTES
    assert (node.facts[0].until_s, node.facts[1].until_s > 0) == (0, True)
