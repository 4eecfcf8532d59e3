"""What `kubectl logs` may ask for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from edge_agent.hostkubelet.log_options import LogOptions, parse_log_options
from edge_agent.hostkubelet.status import KubeletError

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def parse(**query: str) -> LogOptions:
    return parse_log_options(query.items(), NOW)


def test_nothing_asked_is_everything() -> None:
    assert parse() == LogOptions()
    assert (
        parse(pretty="true", insecureSkipTLSVerifyBackend="1", tailLines="", follow="false", previous="0")
        == LogOptions()
    )


def test_all_of_it() -> None:
    assert parse(
        follow="true", tailLines="0", sinceSeconds="60", timestamps="1", previous="True", limitBytes="10"
    ) == LogOptions(
        follow=True,
        tail_lines=0,
        since=NOW - timedelta(seconds=60),
        timestamps=True,
        previous=True,
        limit_bytes=10,
    )


@pytest.mark.parametrize("value", ["true", "True", "1", "yes", ""])
def test_a_flag_is_set_unless_it_says_false(value: str) -> None:
    assert parse(follow=value).follow


def test_the_first_of_several_counts() -> None:
    assert parse_log_options([("tailLines", "3"), ("tailLines", "4")], NOW).tail_lines == 3


def test_only_errors() -> None:
    assert parse(stream="Stderr").errors_only
    assert not parse(stream="All").errors_only
    assert not parse(stream="Stdout").errors_only


def test_since_a_time() -> None:
    assert parse(sinceTime="2026-01-31T10:00:00Z").since == datetime(2026, 1, 31, 10, tzinfo=UTC)
    assert parse(sinceTime="2026-01-31T10:00:00.123456789+02:00").since == datetime(
        2026, 1, 31, 10, 0, 0, 123456, timezone(timedelta(hours=2))
    )


def test_since_before_all_time() -> None:
    since = parse(sinceSeconds="999999999999999999").since
    assert since is not None
    assert since.year == 1


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("tailLines", "-1", "tailLines must be a whole number of at least 0"),
        ("tailLines", "1.5", "tailLines must be"),
        ("tailLines", "٣", "tailLines must be"),
        ("tailLines", "9" * 30, "tailLines must be"),
        ("sinceSeconds", "0", "sinceSeconds must be a whole number of at least 1"),
        ("limitBytes", "0", "limitBytes must be a whole number of at least 1"),
        ("sinceTime", "yesterday", "sinceTime must be a time such as"),
        ("sinceTime", "2026-01-31T10:00:00", "sinceTime must be a time such as"),
        ("stream", "stdout", "stream must be one of All, Stdout, Stderr"),
    ],
)
def test_values_that_make_no_sense(name: str, value: str, text: str) -> None:
    with pytest.raises(KubeletError, match=text) as raised:
        parse(**{name: value})
    assert raised.value.status == 400


def test_two_sinces() -> None:
    with pytest.raises(KubeletError, match="at most one of sinceTime and sinceSeconds"):
        parse(sinceSeconds="1", sinceTime="2026-01-31T10:00:00Z")
