from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509

from cloud_server.trust.hosts import HOSTS_FILE, HostsMissing
from cloud_server.trust.site_proxy import FILE, site_proxy_certificate, site_proxy_context


def names(pem: bytes) -> list[str]:
    found = x509.load_pem_x509_certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]


def test_it_has_the_servers_names_but_none_of_the_machine_itself(tmp_path: Path) -> None:
    (tmp_path / HOSTS_FILE).write_text("127.0.0.1\nlocalhost\ncloud.example.com\n192.0.2.7\n::1\n")
    assert names(site_proxy_certificate(tmp_path)) == ["cloud.example.com", "192.0.2.7"]


def test_a_server_that_is_nowhere_else_keeps_what_it_has(tmp_path: Path) -> None:
    (tmp_path / HOSTS_FILE).write_text("127.0.0.1\n")
    assert names(site_proxy_certificate(tmp_path)) == ["127.0.0.1"]


def test_it_is_made_once_is_secret_and_signs_for_nobody(tmp_path: Path) -> None:
    (tmp_path / HOSTS_FILE).write_text("cloud.example.com\n")
    made = site_proxy_certificate(tmp_path)
    (tmp_path / HOSTS_FILE).write_text("other.example.com\n")
    assert site_proxy_certificate(tmp_path) == made
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    certificate = x509.load_pem_x509_certificate(made)
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    site_proxy_context(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_without_names_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(HostsMissing, match="names given to init"):
        site_proxy_certificate(tmp_path)
