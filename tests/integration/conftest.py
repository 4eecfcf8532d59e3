"""The tunnel that the tests of one file share, and the daemons' logs beside each failure."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from tests.support.cluster import Cluster
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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and report.when == "call":
        for value in getattr(item, "funcargs", {}).values():
            cluster = value.cluster if isinstance(value, Tunnel) else value
            if isinstance(cluster, Cluster):
                report.sections.append(("logs of the daemons", cluster.logs()))
    return report
