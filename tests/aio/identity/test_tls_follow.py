from __future__ import annotations

from pathlib import Path

from cryptography.x509.oid import ExtendedKeyUsageOID
from structlog.testing import capture_logs

from tests.support.pki import Authority
from tunnel.aio.identity.tls_follow import TlsFollower
from tunnel.aio.identity.tls_material import ServerTls

AUTHORITY = Authority()


def test_a_change_is_seen_once_and_a_half_change_is_waited_out(tmp_path: Path) -> None:
    certificate, key = AUTHORITY.issue(hosts=["127.0.0.1"]).write(tmp_path, "leaf")
    follower = TlsFollower(ServerTls(certificate=certificate, key=key, client_ca=AUTHORITY.pem), "users")
    assert follower.poll() is None
    new = AUTHORITY.issue(hosts=["127.0.0.1"])
    _replace(certificate, new.certificate_pem)
    with capture_logs() as logs:
        assert follower.poll() is None, "the certificate is new, its key is not"
    assert [line["log_level"] for line in logs] == ["warning"]
    _replace(key, new.key_pem)
    loaded = follower.poll()
    assert loaded is not None
    assert loaded.certificate == new.certificate_pem
    assert follower.loaded == loaded
    assert follower.poll() is None
    certificate.unlink()
    assert follower.poll() is None, "the old one stays"
    _replace(certificate, new.certificate_pem)
    assert follower.poll() is None, "it is back, and the same"


def test_an_authority_that_changes_is_seen(tmp_path: Path) -> None:
    issued, ca = AUTHORITY.issue(hosts=["127.0.0.1"]), tmp_path / "ca.crt"
    ca.write_bytes(AUTHORITY.pem)
    tls = ServerTls(certificate=issued.certificate_pem, key=issued.key_pem, client_ca=ca)
    follower = TlsFollower(tls, "users")
    both = AUTHORITY.pem + Authority("next").pem
    _replace(ca, both)
    loaded = follower.poll()
    assert loaded is not None
    assert loaded.ca == both


def test_a_certificate_for_servers_alone_is_taken(tmp_path: Path) -> None:
    certificate, key = AUTHORITY.issue(hosts=["127.0.0.1"]).write(tmp_path, "leaf")
    follower = TlsFollower(ServerTls(certificate=certificate, key=key, client_ca=AUTHORITY.pem), "users")
    new = AUTHORITY.issue(hosts=["127.0.0.1"], usage=[ExtendedKeyUsageOID.SERVER_AUTH])
    new.write(tmp_path, "leaf")
    with capture_logs() as logs:
        loaded = follower.poll()
    assert loaded is not None
    assert loaded.certificate == new.certificate_pem
    assert [line["expires"] for line in logs] == [new.certificate.not_valid_after_utc.isoformat()]


def _replace(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_bytes(content)
    fresh.replace(path)
