from __future__ import annotations

import base64
import dataclasses
from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from cloud_server.config import (
    AgentName,
    ClusterConfig,
    ConnectConfig,
    KubernetesConfig,
    ServerConfig,
    TunnelConfig,
    load_server_config,
)
from cloud_server.expiries import watched
from cloud_server.setup import init_state
from cloud_server.trust.site_proxy import site_proxy_certificate
from tests.support.pki import Authority, Issued
from tunnel.aio.identity.validity import Watched
from tunnel.aio.process.config import HostPort

DAY = timedelta(days=1)
AUTHORITY = Authority()


@pytest.fixture
def config(tmp_path: Path) -> ServerConfig:
    return load_server_config(init_state(tmp_path, ["127.0.0.1"]).config)


def by_name(config: ServerConfig) -> dict[str, Watched]:
    return {one.name: one for one in watched(config)}


def life_days(one: Watched) -> int:
    return (one.validity.not_after - one.validity.not_before).days


def test_what_init_made(config: ServerConfig) -> None:
    found = by_name(config)
    assert {name: life_days(one) for name, one in found.items()} == {"server": 825, "ca": 3650}
    assert all(one.heals for one in found.values())


def test_the_certificate_of_sites_where_there_are_any(config: ServerConfig, tmp_path: Path) -> None:
    site_proxy_certificate(tmp_path)
    assert "site-proxy" not in by_name(config)
    connect = ConnectConfig(listen_kubectl=HostPort("127.0.0.1:0"))
    assert life_days(by_name(dataclasses.replace(config, connect=connect))["site-proxy"]) == 3650


def test_files_of_the_users_own_authority(config: ServerConfig, tmp_path: Path) -> None:
    issued = AUTHORITY.issue(ends_in=3 * DAY)
    intermediate = AUTHORITY.issue(ends_in=2 * DAY)
    certificate, key = issued.write(tmp_path, "mine")
    certificate.write_bytes(issued.certificate_pem + intermediate.certificate_pem)
    ca = tmp_path / "mine.ca"
    ca.write_bytes(AUTHORITY.issue(ends_in=-DAY).certificate_pem + AUTHORITY.pem)
    tunnel = TunnelConfig(certificate=certificate, key=key, client_ca=ca)
    found = by_name(dataclasses.replace(config, tunnel=tunnel))
    assert found["server"].validity.not_after == intermediate.certificate.not_valid_after_utc
    assert str(certificate) in found["server"].what
    assert not found["server"].heals
    assert found["ca"].validity.not_after > AUTHORITY.issue().certificate.not_valid_before_utc


def kubeconfig(path: Path, user: dict[str, str]) -> Path:
    config = {
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "other", "user": {}}, {"name": "u", "user": user}],
        "current-context": "c",
    }
    path.write_text(yaml.safe_dump(config))
    return path


def data(issued: Issued) -> str:
    return base64.b64encode(issued.certificate_pem).decode()


def test_clients_of_clusters(config: ServerConfig, tmp_path: Path) -> None:
    inside, beside = AUTHORITY.issue(ends_in=9 * DAY), AUTHORITY.issue(ends_in=8 * DAY)
    beside.write(tmp_path, "beside")
    clusters = [
        ClusterConfig(
            name=AgentName("site-a"),
            kubeconfig=kubeconfig(tmp_path / "a", {"client-certificate": "beside.crt"}),
        ),
        ClusterConfig(name=AgentName("site-b"), kubeconfig=kubeconfig(tmp_path / "b", {"token": "t"})),
        ClusterConfig(name=AgentName("site-c"), kubeconfig=tmp_path / "nowhere"),
    ]
    kubernetes = KubernetesConfig(kubeconfig=kubeconfig(tmp_path / "k", {"client-certificate-data": data(inside)}))
    found = by_name(dataclasses.replace(config, kubernetes=kubernetes, cluster=clusters))
    assert found["kubernetes"].validity.not_after == inside.certificate.not_valid_after_utc
    assert found["cluster site-a"].validity.not_after == beside.certificate.not_valid_after_utc
    assert found.keys() == {"server", "ca", "kubernetes", "cluster site-a"}


@pytest.mark.parametrize("text", ["", "[]", "a: [", "contexts: 3", "users: []\ncontexts: []\ncurrent-context: x"])
def test_what_is_no_kubeconfig_is_left_to_whoever_uses_it(config: ServerConfig, tmp_path: Path, text: str) -> None:
    path = tmp_path / "k"
    path.write_text(text)
    kubernetes = KubernetesConfig(kubeconfig=path)
    assert by_name(dataclasses.replace(config, kubernetes=kubernetes)).keys() == {"server", "ca"}
