"""Cases that people reported of tunnels like ours, each in a file named after its report (docs/compat.md lists them).

A test here drives real processes and real clients. What needs a cluster, a balancer, or more than some two seconds is
marked `e2e` and runs with `make e2e`; the rest runs with `make test`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compat.fleets import RealFleet, real_fleet


@pytest.fixture(scope="module")
def boxes() -> Iterator[RealFleet]:
    """The daemons of a small fleet, for end-to-end tests that leave it as they found it."""
    with real_fleet() as made:
        yield made
