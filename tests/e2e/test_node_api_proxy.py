"""The API proxy of a node in front of a real kube-apiserver: kubectl and the node see what they see without it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.e2e.cluster.proxied import NODE, OTHER_NODE, ProxiedApi, ProxiedApis
from tests.support.kubectl_user import KubectlUser

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]
AGE = re.compile(r"\b\d+[smh]\b")
"""What a Table says of an object's age, which may be another when it is asked for again."""


@pytest.fixture(scope="module")
def place(proxied_apis: ProxiedApis) -> Iterator[ProxiedApi]:
    yield proxied_apis.get()
    proxied_apis.end()


@pytest.fixture(scope="module")
def admin(place: ProxiedApi) -> KubectlUser:
    """One with a ServiceAccount's token, as pods have."""
    return place.account("boss", "cluster-admin")


def test_the_node_is_the_node_and_sees_what_a_node_may(place: ProxiedApi) -> None:
    assert place.node.kubectl("get", "node", NODE, "-o", "name").strip() == f"node/{NODE}"
    assert place.node.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}") == f"system:node:{NODE}"
    refused = place.node.run_kubectl("get", "node", OTHER_NODE)
    assert b"Forbidden" in refused.stderr


def test_a_token_is_passed_on(admin: KubectlUser) -> None:
    assert (
        admin.kubectl("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
        == "system:serviceaccount:default:boss"
    )
    assert NODE in admin.kubectl("get", "nodes")


def test_all_that_kubectl_does(place: ProxiedApi, admin: KubectlUser) -> None:
    direct = place.control.api
    for words in (
        ("get", "namespaces", "-o", "wide"), ("get", "nodes", "-o", "json"), ("api-resources",),
        ("explain", "pod.spec"), ("get", "--raw", "/openapi/v3"),
        ("get", "configmaps", "-n", "kube-system", "--chunk-size=1"), ("version",),
        ("get", "clusterroles", "-o", "yaml"),
    ):  # fmt: skip
        assert AGE.sub("", admin.kubectl(*words)) == AGE.sub("", direct.kubectl(*words)), words
    large = place.folder / "large.yaml"
    large.write_text(json.dumps({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "large"}, "data": {"x": "y" * 900_000},
    }))  # fmt: skip
    admin.kubectl("create", "-f", str(large))
    admin.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(large))
    admin.kubectl("patch", "configmap", "large", "-p", '{"data":{"x":"z"}}')
    assert direct.kubectl("get", "configmap", "large", "-o", "jsonpath={.data.x}") == "z"
    admin.kubectl("delete", "configmap", "large")
    assert b"NotFound" in admin.run_kubectl("get", "configmap", "large").stderr


def test_a_watch_shows_each_change_at_once(place: ProxiedApi, admin: KubectlUser) -> None:
    with admin.follow("get", "configmaps", "-w", "--output-watch-events", "-o", "name") as watching:
        assert watching.stdout is not None
        assert "kube-root-ca.crt" in watching.stdout.readline()
        for number in range(3):
            place.control.api.kubectl("create", "configmap", f"seen-{number}")
            assert f"seen-{number}" in watching.stdout.readline()


def test_a_certificate_of_somebody_else_is_refused_and_told_why(place: ProxiedApi) -> None:
    certificate, key = place.pki.issue("other", "admin", group="system:masters")
    other = place.user("other", {"client-certificate": str(certificate), "client-key": str(key)})
    refused = other.run_kubectl("get", "nodes")
    assert refused.returncode == 1
    assert b"passes on the node's own certificate and bearer tokens" in refused.stderr


def test_a_token_that_is_none_is_refused_by_the_api_server(place: ProxiedApi) -> None:
    refused = place.user("nobody", {"token": "none"}).run_kubectl("get", "nodes")
    assert b"Unauthorized" in refused.stderr


def test_an_api_server_that_is_away_is_named(place: ProxiedApi, admin: KubectlUser) -> None:
    place.control.api.close()
    away: subprocess.CompletedProcess[bytes] = admin.run_kubectl("get", "nodes")
    assert b"is not reached" in away.stderr, away.stderr
