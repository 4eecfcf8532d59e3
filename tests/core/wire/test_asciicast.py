"""Recordings as the players of asciinema read them: asciicast, version 2."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.core.wire.asciicast import (
    MAX_HEADER_TEXT_CHARS,
    MAX_LINE_BYTES,
    Event,
    Header,
    NotAsciicast,
    parse_events,
    parse_header,
    resized,
)

HEADER = Header(columns=80, rows=24, began=1764432000, title="user:ann: sh", command="sh")


def test_a_header() -> None:
    line = HEADER.line()
    assert line.endswith(b"}\n")
    assert json.loads(line) == {
        "version": 2, "width": 80, "height": 24, "timestamp": 1764432000, "title": "user:ann: sh", "command": "sh",
        "env": {"TERM": "xterm"},
    }  # fmt: skip
    assert parse_header(line) == HEADER
    long = Header(columns=1, rows=1, began=0, title="x" * 5000)
    assert len(parse_header(long.line()).title) == MAX_HEADER_TEXT_CHARS


@given(
    at_s=st.floats(0, 1e6),
    text=st.text(max_size=50) | st.binary(max_size=50).map(lambda data: data.decode("utf-8", "replace")),
)
def test_an_event_is_one_line_and_comes_back(at_s: float, text: str) -> None:
    line = Event(at_s, "o", text).line()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert isinstance(json.loads(line), list)
    (back,) = parse_events([line])
    assert back.data == text.encode("utf-8", "replace").decode()
    assert back.at_s == pytest.approx(at_s, abs=1e-6)


def test_a_resize_is_an_event() -> None:
    assert json.loads(resized(1.5, 120, 40).line()) == [1.5, "r", "120x40"]


def test_a_last_line_that_was_cut_is_left_out_and_any_other_is_a_fault() -> None:
    whole = [Event(0.0, "o", "a").line(), Event(1.0, "o", "b").line()]
    assert [event.data for event in parse_events([*whole, b'[2.0, "o", "c'])] == ["a", "b"]
    with pytest.raises(NotAsciicast, match="line 3 is no event"):
        list(parse_events([whole[0], b"[2.0", whole[1]]))
    with pytest.raises(NotAsciicast, match="line 2"):
        list(parse_events([b"x" * (MAX_LINE_BYTES + 1), whole[0]]))


@pytest.mark.parametrize(
    "line",
    [
        b"", b"{}", b"[]", b"\xff\xfe", b'{"version": 1, "width": 80, "height": 24}', b'{"version": 2, "width": "x"}',
        b'{"version": 2, "width": -1, "height": 24}', b'{"version": 2, "width": 80, "height": 24, "title": 3}',
        b"[" * 100000,
    ],
)  # fmt: skip
def test_what_is_no_header(line: bytes) -> None:
    with pytest.raises(NotAsciicast):
        parse_header(line)


@given(lines=st.lists(st.binary(max_size=30)))
def test_any_bytes_are_events_or_a_fault_that_says_so(lines: list[bytes]) -> None:
    try:
        events = list(parse_events(lines))
    except NotAsciicast:
        return
    assert all(event.at_s >= 0 for event in events)


def test_a_size_that_is_none_is_left_out() -> None:
    assert list(parse_events([b'[1, "r", "0x0"]\n', b'[1, "r", "80x24"]\n', b'[1, "i", "typed"]\n'])) == [
        Event(1.0, "r", "80x24"),
        Event(1.0, "i", "typed"),
    ]
