"""tunnel.core.wire.spoken: figures as people say them."""

from __future__ import annotations

import pytest

from tunnel.core.wire.spoken import spoken_s


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
