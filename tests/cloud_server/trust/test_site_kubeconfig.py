from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud_server.trust.site_kubeconfig import Site, SiteUnusable, Through, check_names, read_site, site_kubeconfig
from tests.support.pki import Authority

CA = b"-----BEGIN CERTIFICATE-----\nc2l0ZQ==\n-----END CERTIFICATE-----\n"
LEAF = Authority().issue(hosts=["cloud.example.com", "*.example.org", "192.0.2.7"]).certificate_pem
ISSUER = b"-----BEGIN CERTIFICATE-----\naXNzdWVy\n-----END CERTIFICATE-----\n"


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def written(folder: Path, cluster: dict[str, Any], user: dict[str, Any] | None = None) -> Path:
    """A kubeconfig as K3s writes it, with another context beside the current one."""
    path = folder / "k3s.yaml"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "default",
        "contexts": [
            {"name": "other", "context": {"cluster": "other", "user": "other"}},
            {"name": "default", "context": {"cluster": "default", "user": "default"}},
        ],
        "clusters": [
            {"name": "other", "cluster": {"server": "https://other:1"}},
            {"name": "default", "cluster": {"server": "https://127.0.0.1:6443", **cluster}},
        ],
        "users": [{"name": "other", "user": {"token": "not this"}}, {"name": "default", "user": user or {}}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


def made(site: Site) -> dict[str, Any]:
    text = site_kubeconfig(site, "site-a", Through("cloud.example.com:7446", "box-a", LEAF + ISSUER + b"key"), "T0ken")
    config: dict[str, Any] = yaml.safe_load(text)
    return config


def test_the_address_stays_and_the_proxy_is_the_agents(tmp_path: Path) -> None:
    path = written(tmp_path, {"certificate-authority-data": encoded(CA)}, {"token": "site's own"})
    config = made(read_site(path))
    (cluster,) = config["clusters"]
    assert cluster["name"] == config["current-context"] == "site-a"
    assert cluster["cluster"]["server"] == "https://127.0.0.1:6443"
    assert cluster["cluster"]["proxy-url"] == "https://box-a.longline:T0ken@cloud.example.com:7446"
    assert config["contexts"][0]["context"] == {"cluster": "site-a", "user": config["users"][0]["name"]}
    assert config["users"][0]["user"] == {"token": "site's own"}


def test_trust_is_the_sites_and_the_front_ends_certificate_but_not_its_issuer(tmp_path: Path) -> None:
    config = made(read_site(written(tmp_path, {"certificate-authority-data": encoded(CA)})))
    assert base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]) == CA + LEAF


def test_files_beside_it_are_put_inside(tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(CA)
    (tmp_path / "admin.crt").write_bytes(b"certificate")
    (tmp_path / "admin.key").write_bytes(b"key")
    path = written(
        tmp_path, {"certificate-authority": "ca.crt"}, {"client-certificate": "admin.crt", "client-key": "admin.key"}
    )
    site = read_site(path)
    assert site.cluster["certificate-authority-data"] == encoded(CA)
    assert site.user == {"client-certificate-data": encoded(b"certificate"), "client-key-data": encoded(b"key")}


@pytest.mark.parametrize("text", ["", "[]", "a: [", "current-context: x", "{current-context: x, contexts: []}", "\x00"])
def test_what_is_no_kubeconfig_is_told(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(SiteUnusable, match="no kubeconfig with a current context"):
        read_site(path)


def test_a_site_that_is_not_checked_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SiteUnusable, match="certificate-authority"):
        read_site(written(tmp_path, {"insecure-skip-tls-verify": True}))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"ca\.crt"):
        read_site(written(tmp_path, {"certificate-authority": "ca.crt"}))


def test_an_address_that_only_the_site_has_is_good(tmp_path: Path) -> None:
    check_names(read_site(written(tmp_path, {"certificate-authority-data": encoded(CA)})), LEAF)


@pytest.mark.parametrize(
    "cluster",
    [
        {"server": "https://cloud.example.com:6443"},
        {"server": "https://192.0.2.7:6443"},
        {"server": "https://any.Example.org:6443"},
    ],
)
def test_a_site_that_the_front_end_could_pass_for_is_refused(tmp_path: Path, cluster: dict[str, str]) -> None:
    site = read_site(written(tmp_path, {**cluster, "certificate-authority-data": encoded(CA)}))
    with pytest.raises(SiteUnusable, match="could then pass for the site's API server"):
        check_names(site, LEAF)


def test_a_name_that_kubectl_would_check_the_proxy_for_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, {"tls-server-name": "kubernetes", "certificate-authority-data": encoded(CA)})
    with pytest.raises(SiteUnusable, match="tls-server-name"):
        check_names(read_site(path), LEAF)
