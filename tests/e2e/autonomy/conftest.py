"""One node for all tests of this folder: they leave it with the cloud in reach and the proxy in use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.cluster.autonomous import Edge, autonomous_node


@pytest.fixture(scope="package")
def edge() -> Iterator[Edge]:
    with autonomous_node() as one:
        yield one
