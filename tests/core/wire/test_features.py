"""tunnel.core.wire.features: what both sides can do is what both have named."""

from __future__ import annotations

import pytest

from tunnel.core.wire.features import FEATURES, MAX_FEATURE_BYTES, MAX_FEATURES, common


@pytest.mark.parametrize(
    ("told", "both"),
    [
        ([], frozenset()),
        (["of-a-later-build"], frozenset()),
        ([*FEATURES, "of-a-later-build"], FEATURES),
    ],
)
def test_only_what_both_have_is_used(told: list[str], both: frozenset[str]) -> None:
    assert common(told) == both


def test_our_own_are_within_the_bounds_for_a_peers() -> None:
    assert len(FEATURES) <= MAX_FEATURES
    assert max(map(len, FEATURES)) <= MAX_FEATURE_BYTES
