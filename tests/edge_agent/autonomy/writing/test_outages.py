"""What is remembered of times without the API server, told as one where there were many."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from edge_agent.autonomy.writing.outages import Outages

START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_one_outage() -> None:
    outages = Outages()
    outages.began(START, "no answer within 2 s")
    outages.began(after(5), "refused")
    assert (outages.since, outages.text()) == (START, "")
    outages.ended(after(70))
    assert outages.are_over
    assert outages.span == (START, after(70))
    text = "from 2026-03-01T12:00:00Z to 2026-03-01T12:01:10Z (70 s): no answer within 2 s"
    assert outages.text() == text
    outages.told()
    assert (outages.text(), outages.last, outages.count) == ("", text, 0)


def test_many_are_told_as_one() -> None:
    outages = Outages()
    for number in range(14):
        outages.began(after(10 * number), f"reason {number}")
        outages.ended(after(10 * number + 5))
    text = "14 times from 2026-03-01T12:00:00Z to 2026-03-01T12:02:15Z (70 s in all), last: reason 13"
    assert (outages.text(), outages.count) == (text, 14)


def test_an_end_without_a_beginning_is_none() -> None:
    outages = Outages()
    outages.ended(START)
    assert not outages.are_over


def test_a_clock_that_was_set_back_makes_no_negative_time() -> None:
    outages = Outages()
    outages.began(START, "x")
    outages.ended(after(-3600))
    assert "(0 s)" in outages.text()


def test_it_lasts_over_a_restart() -> None:
    outages = Outages()
    outages.began(START, "first")
    outages.ended(after(5))
    outages.told()
    outages.began(after(10), "second")
    outages.ended(after(20))
    outages.began(after(30), "third")
    again = Outages()
    again.restore(outages.raw())
    assert (again.since, again.count, again.last) == (after(30), 1, outages.last)
    again.ended(after(40))
    assert again.text().startswith("2 times from 2026-03-01T12:00:10Z to 2026-03-01T12:00:40Z (20 s in all)")


@pytest.mark.parametrize("raw", [b"", b"5", b"[]", b"{}", b'["x", "", null, ""]', b'[null, "", [1, 2], ""]'])
def test_what_is_no_record_is_refused(raw: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - of several kinds
        Outages().restore(raw)
