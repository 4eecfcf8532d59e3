"""What tests share: a site for those of one file, and an API server behind a node's proxy for those of several."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.cluster.proxied import ProxiedApis
from tests.support.site import Site, site


@pytest.fixture(scope="module")
def shared() -> Iterator[Site]:
    """For tests that leave it as they found it: up, with nothing open."""
    with site() as made:
        yield made


@pytest.fixture(scope="session")
def proxied_apis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedApis]:
    """Those of `test_node_api_informers.py` leave it as they found it; those of `test_node_api_proxy.py`, behind them,
    end it.
    """
    made = ProxiedApis(lambda: tmp_path_factory.mktemp("proxied"))
    try:
        yield made
    finally:
        made.end()
