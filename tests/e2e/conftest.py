"""The site that the tests of one file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.site import Site, site


@pytest.fixture(scope="module")
def shared() -> Iterator[Site]:
    """For tests that leave it as they found it: up, with nothing open."""
    with site() as made:
        yield made
