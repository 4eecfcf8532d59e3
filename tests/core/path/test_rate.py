"""tunnel.core.path.rate: a burst at once, then the rate."""

from __future__ import annotations

import pytest

from tunnel.core.path import rate
from tunnel.core.path.rate import TokenBucket, TokenBuckets


def test_a_burst_then_the_rate() -> None:
    bucket = TokenBucket(10.0, 3, now=5.0)
    assert [bucket.take(5.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(5.05)
    assert bucket.take(5.11)
    assert not bucket.take(5.11)


def test_rest_never_saves_more_than_the_burst() -> None:
    bucket = TokenBucket(10.0, 2, now=0.0)
    assert [bucket.take(1000.0) for _ in range(3)] == [True, True, False]


def test_how_long_it_takes_until_there_is_one() -> None:
    bucket = TokenBucket(0.5, 1, now=0.0)
    assert bucket.wait_s == 0.0
    bucket.take(0.0)
    assert bucket.wait_s == 2.0
    assert not bucket.take(1.0)
    assert bucket.wait_s == 1.0


def test_each_has_a_bucket_of_their_own() -> None:
    buckets = TokenBuckets(0.5, 2)
    assert [buckets.take("a", 0.0) for _ in range(3)] == [0.0, 0.0, 2.0]
    assert buckets.take("b", 0.0) == 0.0
    buckets.forget("a")
    assert buckets.take("a", 0.0) == 0.0


def test_a_larger_burst_is_not_forgotten_before_it_is_full_again() -> None:
    buckets = TokenBuckets(0.5, 2)
    assert [buckets.take("a", 0.0, 3) for _ in range(6)] == [0.0] * 5 + [2.0]
    assert [buckets.take("a", 4.0, 3) for _ in range(3)] == [0.0, 0.0, 2.0], "in 4 s any other is full"
    buckets.take("b", 13.9)
    assert len(buckets) == 2
    buckets.take("b", 14.0)
    assert len(buckets) == 1


def test_buckets_that_are_full_again_are_forgotten_and_no_others() -> None:
    buckets = TokenBuckets(0.5, 2)
    for second in range(4):
        buckets.take(f"box-{second}", float(second))
    assert len(buckets) == 4
    buckets.take("box-0", 3.5)
    buckets.take("box-9", 6.2)  # 4 s make one full: those of the seconds 1 and 2 are
    assert len(buckets) == 3
    assert buckets.take("box-0", 6.2) == 0.0
    buckets.take("box-9", 100.0)
    assert len(buckets) == 1


def test_a_look_uses_none() -> None:
    buckets = TokenBuckets(0.5, 2)
    assert buckets.wait_s("a", 0.0) == 0.0
    assert len(buckets) == 0
    buckets.take("a", 0.0)
    assert [buckets.wait_s("a", 0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    buckets.take("a", 0.0)
    assert [buckets.wait_s("a", now) for now in (0.0, 0.5, 2.0, 99.0)] == [2.0, 1.5, 0.0, 0.0]


def test_what_is_spent_is_told_and_by_whom_most() -> None:
    bucket = TokenBucket(2.0, 10, 0.0)
    assert bucket.spent(0.0) == 0
    bucket.spend(7, 0.0)
    assert [bucket.spent(now) for now in (0.0, 1.0, 1.1, 99.0)] == [7, 5, 5, 0]
    buckets = TokenBuckets(2.0, 10)
    assert (buckets.burst, buckets.most_spent(0.0)) == (10, 0)
    for _ in range(3):
        buckets.take("a", 0.0)
    assert buckets.spend("b", 0.0) == 0.0
    assert buckets.most_spent(0.0) == 3
    for _ in range(9):
        buckets.take("large", 0.0, 4)
    assert buckets.most_spent(0.0) == 9 - 4
    assert buckets.every_s == 0.5
    assert [buckets.at_rest(now) for now in (5.0, 7.0)] == [False, True]


def test_tokens_to_come_are_given_out_in_turn_and_none_beyond_the_wait() -> None:
    bucket = TokenBucket(10.0, 2, now=0.0)
    assert [bucket.reserve(0.0, 0.25) for _ in range(6)] == [0.0, 0.0, 0.1, 0.2, None, None]
    assert bucket.reserve(0.3, 0.25) == pytest.approx(0.0)
    buckets = TokenBuckets(10.0, 1)
    assert [buckets.reserve("a", 0.0, 0.1) for _ in range(3)] == [0.0, 0.1, None]


def test_what_is_spent_beyond_the_burst_is_waited_for() -> None:
    bucket = TokenBucket(10.0, 5, now=0.0)
    assert [bucket.spend(count, 0.0) for count in (5, 1, 4)] == [0.0, 0.1, 0.5]
    bucket.earn(3)
    assert bucket.spend(0, 0.0) == pytest.approx(0.2)
    bucket.earn(1000)
    assert bucket.spend(5, 0.0) == 0.0
    buckets = TokenBuckets(10.0, 1)
    assert [buckets.spend("a", 0.0) for _ in range(3)] == [0.0, 0.1, 0.2]


def test_another_rate_holds_for_what_was_used_before() -> None:
    buckets = TokenBuckets(1.0, 2)
    assert [buckets.take("a", 0.0, 1) for _ in range(4)] == [0.0, 0.0, 0.0, 1.0]
    buckets.change(10.0, 4)
    assert [buckets.take("a", 0.0, 1) for _ in range(3)] == [0.0, 0.0, 0.1]
    assert [buckets.take("b", 0.0) for _ in range(5)] == [0.0] * 4 + [0.1]


def test_there_is_a_most_of_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate, "MAX_BUCKETS", 2)
    buckets = TokenBuckets(0.5, 1)
    for who in ("a", "b", "a", "c"):
        buckets.take(who, 0.0)
    assert len(buckets) == 2
    assert buckets.take("a", 0.0) == 2.0, "it was asked last but one"
    assert buckets.take("b", 0.0) == 0.0, "it was forgotten"
