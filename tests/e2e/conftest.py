"""The site that the tests of one file share, and the daemons' logs beside each failure."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import pytest

from tests.e2e.cluster import requirements
from tests.e2e.cluster.kubelet_box import KubeletBox
from tests.e2e.cluster.site_cluster import SiteCluster
from tests.e2e.cluster.tunnelled import Tunnelled, tunnelled
from tests.support.cluster import Cluster
from tests.support.site import Site, site
from tests.support.tunnel import Tunnel


@pytest.fixture(scope="module")
def shared() -> Iterator[Site]:
    """For tests that leave it as they found it: up, with nothing open."""
    with site() as made:
        yield made


@pytest.fixture(scope="session")
def kube() -> Iterator[Tunnelled]:
    """A Kubernetes whose only way to its nodes is the tunnel, for tests that leave it as they found it."""
    if reason := requirements.missing():
        pytest.skip(reason)
    with tunnelled() as made:
        yield made


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and report.when == "call":
        for value in getattr(item, "funcargs", {}).values():
            made = value.cluster if isinstance(value, Site | Tunnel) else value
            if isinstance(made, Cluster | KubeletBox | SiteCluster | Tunnelled):
                report.sections.append(("logs of the daemons", made.logs()))
    return report
