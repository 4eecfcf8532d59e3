"""kube-apiserver itself asks pods on edge nodes: a webhook that must answer, and an API that is served there.

It dials a service's cluster IP; the cloud server finds the pod behind it, and TLS goes from end to end.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.cluster.backend import FORBIDDEN, KNOWN_S, Backend, available, create, wait_until_asked
from tests.e2e.cluster.backend import backend as running_backend
from tests.e2e.cluster.kubernetes import SITES
from tests.e2e.cluster.tunnelled import Tunnelled
from tests.support.tunnel import wait_until

# Only of the test itself: when Kubernetes has to be built first, that takes minutes.
pytestmark = pytest.mark.timeout(90, func_only=True)


@pytest.fixture(scope="module", params=SITES)
def backend(request: pytest.FixtureRequest, kube: Tunnelled) -> Iterator[Backend]:
    with running_backend(kube, request.param, kube.kubernetes.control) as made:
        yield made


@pytest.fixture
def name(backend: Backend, kube: Tunnelled) -> Iterator[str]:
    """Of an object that a test may create."""
    made = f"asked-{backend.where}"
    yield made
    kube.kubectl("delete", "configmap", made, "--ignore-not-found")


class TestWebhook:
    def test_denied(self, kube: Tunnelled, backend: Backend, name: str) -> None:
        wait_until_asked(kube, backend)
        denied = create(kube, name, backend.where, **{FORBIDDEN: ""})
        assert denied.returncode == 1
        said = f'admission webhook "validate.{backend.group}" denied the request: {backend.name} forbids it'
        assert said.encode() in denied.stderr
        assert kube.run_kubectl("get", "configmap", name).returncode == 1

    def test_allowed(self, kube: Tunnelled, backend: Backend, name: str) -> None:
        wait_until_asked(kube, backend)
        assert create(kube, name, backend.where).returncode == 0
        assert name in kube.kubectl("get", "configmap", name)


class TestAggregatedApi:
    def test_available(self, kube: Tunnelled, backend: Backend) -> None:
        wait_until(lambda: available(kube, backend), "the API is available", KNOWN_S)
        assert "readings" in kube.kubectl("api-resources", "--api-group", backend.group)

    def test_get(self, kube: Tunnelled, backend: Backend) -> None:
        wait_until(lambda: available(kube, backend), "the API is available", KNOWN_S)
        resource = f"readings.{backend.group}"
        assert kube.kubectl("get", resource, "-o", "name") == f"reading.{backend.group}/{backend.name}\n"
        # Who asks is told by kube-apiserver's own certificate, which came through the tunnel as it is.
        assert kube.kubectl("get", resource, "-o", "jsonpath={.items[0].user}") == "admin"


def test_a_pod_that_is_gone_and_comes_back(kube: Tunnelled, backend: Backend, name: str) -> None:
    wait_until_asked(kube, backend)
    kube.kubectl("delete", "pod", backend.name)
    refused = create(kube, name, backend.where)
    assert refused.returncode == 1
    assert f'failed calling webhook "validate.{backend.group}"'.encode() in refused.stderr
    wait_until(lambda: not available(kube, backend), "the API is missed", KNOWN_S)
    kube.kubernetes.control.api.apply(backend.pod())
    wait_until_asked(kube, backend)
    wait_until(lambda: available(kube, backend), "the API is back", KNOWN_S)
    assert backend.name in kube.kubectl("get", f"readings.{backend.group}")
    assert create(kube, name, backend.where).returncode == 0
