from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tunnel.aio.process.moments import moment


def test_a_number_is_a_moment() -> None:
    assert moment(0) == datetime(1970, 1, 1, tzinfo=UTC)
    assert moment(253_402_300_799) == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    "seconds", [253_402_300_800, 10**15, 10**17, -(10**17), 10**20, 1e300, float("nan"), float("inf")]
)
def test_one_without_a_date_is_told_in_one_way(seconds: float) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever its words
        moment(seconds)
