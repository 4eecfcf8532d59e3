"""tunnel.core.path.rate: a burst at once, then the rate."""

from __future__ import annotations

from tunnel.core.path.rate import TokenBucket


def test_a_burst_then_the_rate() -> None:
    bucket = TokenBucket(10.0, 3, now=5.0)
    assert [bucket.take(5.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(5.05)
    assert bucket.take(5.11)
    assert not bucket.take(5.11)


def test_rest_never_saves_more_than_the_burst() -> None:
    bucket = TokenBucket(10.0, 2, now=0.0)
    assert [bucket.take(1000.0) for _ in range(3)] == [True, True, False]
