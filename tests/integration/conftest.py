"""The tunnel that the tests of one file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.tunnel import Tunnel, tunnel


@pytest.fixture(scope="module")
def shared() -> Iterator[Tunnel]:
    """For tests that leave it as they found it: up, with nothing open."""
    with tunnel() as made:
        yield made


@pytest.fixture
def own() -> Iterator[Tunnel]:
    """For tests that break it."""
    with tunnel(["echo", "count", "source", "flood"]) as made:
        yield made
