"""tunnel.core.wire.spoken: figures as people say them."""

from __future__ import annotations

import pytest

from tunnel.core.wire.spoken import printable, spoken_s


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (9.99887, "10 s"),
        (9.949, "9.9 s"),
        (30, "30 s"),
        (123.4, "123 s"),
        (2.5, "2.5 s"),
        (1.0000001, "1 s"),
        (0.25, "0.25 s"),
        (0.0499, "0.05 s"),
        (0.0, "0 s"),
    ],
)
def test_no_more_digits_than_anybody_needs(seconds: float, said: str) -> None:
    assert spoken_s(seconds) == said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("Straße 7, 東京", "Straße 7, 東京"),
        ("a\nb\r\tc\x00\x7f", "a?b??c??"),
        ("\x1b[31;1mred\x1b[0m", "?red?"),
        ("\x9b2Jwiped", "?wiped"),
        ("\x1b]0;owned\x07title", "?title"),
        ("\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\", "?link?"),
        ("\x1bPq\x1b\\sixel", "?sixel"),
        ("\x1bcreset\x1b(B", "?reset?"),
        ("\x1b", "?"),
        ("\x1b]0;not ended", "?]0;not ended"),
        ("\x1b[99", "?[99"),
        ("half \ud800 right\u202eto left\u2028", "half ? right?to left?"),
    ],
)
def test_what_terminals_obey_becomes_a_question_mark(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(shown) == shown


def test_a_text_is_cut_before_it_is_looked_at() -> None:
    assert printable("x" * 30_000, 64) == "x" * 64
    assert printable("\x1b[31m" * 100_000, 8) == "??[3"
    assert printable("no longer", 9) == "no longer"


def test_no_text_takes_more_than_its_length_in_time() -> None:
    for part in ("\x1b]", "\x1b[", "\x1b[;", "\x90", "\x1b "):
        assert "\x1b" not in printable(part * 100_000)
