from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from tunnel.aio.identity.validity import ExpiryLog, Standing, Validity, Watched, check, span

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def watched(life: timedelta, *, name: str = "server", heals: bool = False) -> Watched:
    return Watched(
        name=name,
        what="the certificate /x.crt",
        validity=Validity(BEGIN, BEGIN + life),
        remedy="renew it",
        heals=heals,
    )


@pytest.mark.parametrize(
    ("life", "left", "standing"),
    [
        *(
            (life, left, standing)
            for life in (825 * DAY, 3650 * DAY)  # a server's, and an authority's
            for left, standing in (
                (30 * DAY, Standing.GOOD),
                (29.9 * DAY, Standing.NEAR),
                (7 * DAY, Standing.NEAR),
                (6.9 * DAY, Standing.SOON),
                (DAY, Standing.SOON),
                (0.9 * DAY, Standing.LAST),
                (timedelta(0), Standing.OVER),
            )
        ),
        (825 * DAY, 826 * DAY, Standing.NOT_YET),
        (7 * DAY, 2 * DAY, Standing.GOOD),  # an agent's: it renews itself with a third left
        (7 * DAY, 1.7 * DAY, Standing.NEAR),
        (7 * DAY, 0.6 * DAY, Standing.SOON),
        (7 * DAY, 0.3 * DAY, Standing.LAST),
    ],
)
def test_where_a_certificate_is_in_its_life(life: timedelta, left: timedelta, standing: Standing) -> None:
    assert watched(life).standing(BEGIN + life - left) is standing


def test_what_is_said_names_the_file_the_date_the_clock_and_what_to_do() -> None:
    one = watched(100 * DAY)
    assert one.told(BEGIN) == "the certificate /x.crt is good for 100 days"
    assert one.told(BEGIN + 90 * DAY) == "the certificate /x.crt expires in 10 days, on 2026-04-11 00:00 UTC: renew it"
    assert one.told(BEGIN + 101 * DAY) == (
        "the certificate /x.crt expired on 2026-04-11 00:00 UTC (this machine's clock says 2026-04-12 00:00 UTC): "
        "renew it"
    )
    assert "not valid before 2026-01-01 00:00 UTC, and this machine's clock says 1970-01-01" in one.told(
        datetime(1970, 1, 1, tzinfo=UTC)
    )


def test_the_log_is_told_once_a_day_and_at_each_step() -> None:
    log, one = ExpiryLog(), watched(825 * DAY)
    end = BEGIN + 825 * DAY

    def told(left: timedelta) -> list[str]:
        with capture_logs() as lines:
            log.look([one], end - left)
        return [line["log_level"] for line in lines]

    assert told(100 * DAY) == []
    assert told(20 * DAY) == ["warning"]
    assert told(20 * DAY - timedelta(hours=23)) == []
    assert told(19 * DAY) == ["warning"]
    assert told(7 * DAY - timedelta(minutes=1)) == ["error"]
    assert told(DAY - timedelta(minutes=1)) == ["error"]
    assert told(DAY - timedelta(minutes=2)) == []
    assert told(timedelta(0)) == ["error"]
    assert told(800 * DAY) == []
    assert told(20 * DAY) == ["warning"], "its renewal is forgotten"


def test_a_check_fails_for_what_nobody_heals() -> None:
    over = [watched(10 * DAY, name="a"), watched(10 * DAY, name="b", heals=True), watched(20 * DAY, name="c")]
    lines, faults = check(over, BEGIN + 11 * DAY)
    assert len(lines) == 2
    assert len(faults) == 1


@pytest.mark.parametrize(
    ("length", "words"),
    [
        (timedelta(days=550, hours=3), "550 days"),
        (timedelta(hours=47), "47 hours"),
        (timedelta(hours=1), "1 hour"),
        (timedelta(minutes=59), "59 minutes"),
        (-timedelta(days=6), "6 days"),
        (timedelta(seconds=5), "less than a minute"),
    ],
)
def test_lengths_of_time(length: timedelta, words: str) -> None:
    assert span(length) == words
