"""The API proxy of a node in front of a real kube-apiserver: kubectl and the node see what they see without it."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from functools import partial

import pytest
import yaml

from tests.e2e.cluster.proxied import NODE, OTHER_NODE, ProxiedApi, ProxiedApis
from tests.support.kubectl_user import KubectlUser
from tests.support.ports import free_ports
from tests.support.processes import command_result
from tests.support.tunnel import wait_until

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


def test_a_look_at_the_node_finds_it_good(place: ProxiedApi, admin: KubectlUser) -> None:
    done = command_result("edge-agent", "autonomy", "check", "--config", str(place.box.config), timeout_s=60)
    assert (done.returncode, "Error" in done.stderr) == (0, False), done.stderr
    for wanted in (
        "dialled directly answers the kubelet's certificate", "clock: it says what the API server's says",
        f"address: the agent answers at 127.0.0.1:{place.port}", "can be led through the agent",
    ):  # fmt: skip
        assert wanted in done.stdout
    assert "images: " in done.stdout + done.stderr, "of the pods that other tests have made"
    admin.kubectl("get", "--raw", "/api/v1/namespaces?resourceVersion=0")  # which is kept from now on
    status = ("edge-agent", "autonomy", "status", "--config", str(place.box.config))
    kept = re.compile("kept {8}namespaces of system:serviceaccount:default:boss: [0-9]+ objects")
    wait_until(lambda: kept.search(command_result(*status).stdout), "the list is kept", 20)
    shown = command_result(*status)
    assert "API server  reached since" in shown.stdout
    assert shown.returncode == int("NOT KEPT" in shown.stdout), shown.stdout


def _is_answered(user: KubectlUser) -> bool:
    return user.run_kubectl("get", "--raw", "/version").returncode == 0


def test_another_address_is_believed_by_whoever_knows_the_proxy(place: ProxiedApi, admin: KubectlUser) -> None:
    known = place.box.state / "api-proxy.crt"
    before = place.folder / "before.crt"
    before.write_bytes(known.read_bytes())
    (port,) = free_ports(1)
    place.box.configure({"autonomy": {"listen": [f"127.0.0.1:{place.port}", f"127.0.0.2:{port}"]}})
    wait_until(lambda: known.read_bytes() != before.read_bytes(), "the proxy has another certificate", 20)
    token = yaml.safe_load(admin.kubeconfig.read_text())["users"][0]["user"]
    for name, authority, server in (
        ("old", before, f"https://127.0.0.1:{place.port}"), ("new", known, f"https://127.0.0.2:{port}"),
    ):  # fmt: skip
        user = place.user(name, token)
        content = yaml.safe_load(user.kubeconfig.read_text())
        content["clusters"][0]["cluster"] = {"certificate-authority": str(authority), "server": server}
        user.kubeconfig.write_text(yaml.safe_dump(content))
        wait_until(partial(_is_answered, user), f"who knows the {name} certificate believes it", 20)


def test_an_api_server_that_is_away_is_named(place: ProxiedApi, admin: KubectlUser) -> None:
    place.control.api.close()
    away: subprocess.CompletedProcess[bytes] = admin.run_kubectl("get", "nodes")
    assert b"is not reached" in away.stderr, away.stderr
