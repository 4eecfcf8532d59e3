"""Whose kubeconfigs can be led through the proxy: the node's own certificate, and tokens."""

from __future__ import annotations

from base64 import b64encode
from pathlib import Path

import pytest

from edge_agent.autonomy.kubeconfig_user import refused_user
from tests.support.pki import Authority

AUTHORITY = Authority()
NODE = "system:node:box-7"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    AUTHORITY.issue(common_name="system:kube-proxy").write(tmp_path, "kube-proxy")
    AUTHORITY.issue(common_name=NODE).write(tmp_path, "renewed")
    return AUTHORITY.issue(common_name=NODE).write(tmp_path, "kubelet")[0]


def user(*lines: str) -> str:
    return "\n".join(["users:", "- name: user", "  user:", *(f"    {line}" for line in lines), ""])


def test_another_certificate_is_refused(own: Path) -> None:
    folder = own.parent
    for line in (
        f"client-certificate: {folder}/kube-proxy.crt",
        "client-certificate: kube-proxy.crt",
        f"client-certificate-data: {b64encode((folder / 'kube-proxy.crt').read_bytes()).decode()}",
    ):
        assert "CN=system:kube-proxy" in refused_user(user(line, "client-key: x"), folder, own)


def test_the_nodes_own_is_taken_and_so_are_tokens(own: Path) -> None:
    folder = own.parent
    for line in (
        f"client-certificate: {own}", "client-certificate: renewed.crt", "tokenFile: /var/run/token", "token: abc",
        "client-certificate: /none", "client-certificate-data: '*'", "username: x",
    ):  # fmt: skip
        assert refused_user(user(line), folder, own) == ""
