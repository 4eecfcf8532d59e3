"""The ring of events: what is kept, what a follower is told that it missed."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from cloud_server.operate.events import LOST, MAX_TEXT_CHARS, EventBook, begin_now
from tunnel.core.wire.errors import Code, SessionRefused
from tunnel.core.wire.faults import AGENT_REVOKED


def told(book: EventBook, seq: int) -> list[tuple[int, str, str]]:
    return [(event.seq, event.kind, event.text) for event in book.since(seq)]


async def test_events_behind_a_number() -> None:
    book = EventBook(0)
    for text in "abc":
        book.tell("config", text)
    assert told(book, 0) == [(1, "config", "a"), (2, "config", "b"), (3, "config", "c")]
    assert told(book, 2) == [(3, "config", "c")]
    assert told(book, 3) == []


async def test_who_comes_too_late_is_told_how_much_is_lost_and_can_go_on_from_there() -> None:
    book = EventBook(0, max_events=2)
    for text in "abcde":
        book.tell("config", text)
    assert told(book, 1) == [(3, LOST, "2 events are lost"), (4, "config", "d"), (5, "config", "e")]
    assert told(book, 3) == [(4, "config", "d"), (5, "config", "e")]
    assert told(book, 2)[0] == (3, LOST, "1 event is lost")


async def test_a_number_of_an_earlier_process() -> None:
    earlier = EventBook(begin_now())
    earlier.tell("config", "before")
    last = earlier.since(0)[-1].seq
    began = last + 5
    book = EventBook(began, max_events=2)
    assert [kind for _, kind, _ in told(book, last)] == [LOST], "though nothing happened since"
    book.tell("config", "a")
    for seq in (1, last, began + 7):  # the last: of a process whose clock was ahead
        (lost, first) = told(book, seq)
        assert (lost[:2], "started anew" in lost[2], first) == ((began, LOST), True, (began + 1, "config", "a"))
    assert told(book, 0) == [(began + 1, "config", "a")], "who asks for all has missed nothing that is kept"
    book.tell("config", "b")
    book.tell("config", "c")
    assert [text for _, _, text in told(book, began)] == ["1 event is lost", "b", "c"]


async def test_a_follower_gets_what_comes_and_what_was_lost_while_it_did_not_read() -> None:
    book = EventBook(0, max_events=3)
    book.tell("config", "before")
    async with aclosing(book.follow(0)) as events:
        assert await anext(events) == book.since(0)[0].as_json()
        asyncio.get_running_loop().call_later(0.01, book.tell, "away", "a link broke", "box-7")
        assert (await anext(events))["agent"] == "box-7"  # type: ignore[index]
        for number in range(5):
            book.tell("config", str(number))
        seen = [await anext(events) for _ in range(4)]
        assert [(one["seq"], one["kind"]) for one in seen] == [  # type: ignore[index]
            (4, LOST), (5, "config"), (6, "config"), (7, "config"),
        ]  # fmt: skip


async def test_one_who_is_turned_away_again_and_again_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("cloud_server.operate.events.time.monotonic", lambda: now)
    book = EventBook(0)
    revoked = SessionRefused("box-7 was revoked", Code.IDENTITY_REJECTED, fault=AGENT_REVOKED)
    for port in range(5):
        book.refused("box-7", f"192.0.2.1:{port}", revoked)
    book.refused("box-7", "192.0.2.2:1", revoked)
    now += 61
    book.refused("box-7", "192.0.2.1:9", revoked)
    assert [(kind, text[:40]) for _, kind, text in told(book, 0)] == [
        ("refused", "turned away at 192.0.2.1: LL2015: box-7 "),
        ("refused", "turned away at 192.0.2.2: LL2015: box-7 "),
        ("refused", "turned away at 192.0.2.1: LL2015: box-7 "),
    ]
    book.refused("box-7", "192.0.2.1:9", SessionRefused("another process", Code.REPLACED))
    assert told(book, 3)[0][1] == "replaced"


async def test_a_text_of_a_peer_is_cut() -> None:
    book = EventBook(0)
    book.tell("away", "x" * 5000, "box-7")
    assert len(told(book, 0)[0][2]) == MAX_TEXT_CHARS
