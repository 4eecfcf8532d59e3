"""What our certificates say, and that TLS stacks which know nothing of us accept them."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID as Usage

from cloud_server.trust.ca import AGENT_LIFE, CaMissing, CertificateAuthority, Issued
from tunnel.aio.process.files import write_together

DAY = timedelta(days=1)
KEY = ec.generate_private_key(ec.SECP256R1())


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority.create("longline")


def parsed(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def names_of(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value


def uris_of(certificate: x509.Certificate) -> list[str]:
    return names_of(certificate).get_values_for_type(x509.UniformResourceIdentifier)


def usage_of(certificate: x509.Certificate) -> set[x509.ObjectIdentifier]:
    return set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_the_authority_may_sign_and_nothing_below_it_may(authority: CertificateAuthority) -> None:
    own = authority.certificate
    constraints = own.extensions.get_extension_for_class(x509.BasicConstraints)
    assert constraints.critical
    assert (constraints.value.ca, constraints.value.path_length) == (True, None)
    usage = own.extensions.get_extension_for_class(x509.KeyUsage).value
    assert usage.key_cert_sign
    own.verify_directly_issued_by(own)

    leaf = parsed(authority.issue_user("ann", KEY.public_key(), DAY))
    leaf.verify_directly_issued_by(own)
    assert not leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert not leaf.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign


def test_a_server_has_its_hosts_and_the_machine_itself(authority: CertificateAuthority) -> None:
    certificate = parsed(
        authority.issue_server(["cloud.example.com", "192.0.2.1", "fd00::1", "localhost"]).certificate_pem
    )
    names = names_of(certificate)
    assert names.get_values_for_type(x509.DNSName) == ["cloud.example.com", "localhost"]
    assert names.get_values_for_type(x509.IPAddress) == [
        IPv4Address("192.0.2.1"),
        IPv6Address("fd00::1"),
        IPv4Address("127.0.0.1"),
        IPv6Address("::1"),
    ]
    assert uris_of(certificate) == ["spiffe://longline/server"]
    assert usage_of(certificate) == {Usage.SERVER_AUTH, Usage.CLIENT_AUTH}


def test_everyone_else_is_a_client_with_one_name(authority: CertificateAuthority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    for pem, uri in (
        (authority.issue_user("ann@example.com", KEY.public_key(), DAY), "spiffe://longline/user/ann@example.com"),
        (authority.issue_join("0123", DAY, "box-7").certificate_pem, "spiffe://longline/join/0123"),
        (authority.issue_agent("box-7", key.public_key()), "spiffe://longline/agent/box-7"),
    ):
        assert uris_of(parsed(pem)) == [uri]
        assert usage_of(parsed(pem)) == {Usage.CLIENT_AUTH}


def test_an_agent_gets_a_short_life_for_the_key_that_it_made(authority: CertificateAuthority) -> None:
    key = ec.generate_private_key(ec.SECP384R1())
    certificate = parsed(authority.issue_agent("box-7", key.public_key()))
    assert certificate.public_key() == key.public_key()
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(0) < AGENT_LIFE - left < timedelta(minutes=1)
    assert certificate.not_valid_before_utc < datetime.now(UTC) - timedelta(minutes=4)


def test_no_certificate_outlives_the_authority(authority: CertificateAuthority) -> None:
    issued = authority.issue_join("0123", timedelta(days=36500), "box-7")
    assert parsed(issued.certificate_pem).not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_it_is_loaded_as_it_was_written_and_its_key_is_secret(tmp_path: Path, authority: CertificateAuthority) -> None:
    assert not CertificateAuthority.exists(tmp_path)
    write_together(authority.files(tmp_path))
    assert CertificateAuthority.exists(tmp_path)
    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600
    loaded = CertificateAuthority.load(tmp_path, "example.org")
    assert loaded.pem == authority.pem
    user = parsed(loaded.issue_user("ann", KEY.public_key(), DAY))
    user.verify_directly_issued_by(authority.certificate)
    assert uris_of(user) == ["spiffe://example.org/user/ann"]


def test_a_folder_without_a_usable_authority(tmp_path: Path, authority: CertificateAuthority) -> None:
    def refused() -> str:
        with pytest.raises(CaMissing) as caught:
            CertificateAuthority.load(tmp_path, "longline")
        return str(caught.value)

    assert "run cloud-server init" in refused()
    (tmp_path / "ca.crt").mkdir()
    assert refused() == f"{tmp_path}/ca.crt cannot be read: Is a directory"
    (tmp_path / "ca.crt").rmdir()
    write_together(authority.files(tmp_path))
    (tmp_path / "ca.key").write_text("rubbish")
    assert "no usable certificate authority" in refused()
    write_together(CertificateAuthority.create("longline").files(tmp_path)[:1])
    assert "is not the key of" in refused()
    (tmp_path / "ca.key").write_bytes(pem_of(rsa.generate_private_key(65537, 2048)))
    assert "is not a key that cloud-server init made" in refused()
    (tmp_path / "ca.key").write_bytes(pem_of(ec.generate_private_key(ec.SECP256R1()), b"password"))
    assert "no usable certificate authority" in refused()


def pem_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey, password: bytes = b"") -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def test_no_key_is_in_the_text_of_what_was_issued(authority: CertificateAuthority) -> None:
    assert "PRIVATE" not in repr(authority.issue_join("0123", DAY, "box-7"))


@pytest.mark.parametrize("host", ["cloud.example.com", "192.0.2.1", "fd00::1", "127.0.0.1"])
def test_another_tls_accepts_them_strictly(tmp_path: Path, authority: CertificateAuthority, host: str) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.create_default_context(cadata=authority.pem.decode())
    server.load_verify_locations(cadata=authority.pem.decode())
    server.verify_mode = ssl.CERT_REQUIRED
    for context in (server, client):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    load(server, authority.issue_server(["cloud.example.com", "192.0.2.1", "fd00::1"]), tmp_path)
    load(client, authority.issue_join("0123", DAY, "box-7"), tmp_path)
    near, far = socket.socketpair()
    with near, far:
        far.settimeout(10)
        near.settimeout(10)
        accepted: list[object] = []

        def accept() -> None:
            with server.wrap_socket(far, server_side=True) as secured:
                accepted.append(secured.getpeercert())
                secured.send(b"x")

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            with client.wrap_socket(near, server_hostname=host) as secured:
                assert secured.recv(1) == b"x"
        finally:
            thread.join(10)
        (certificate,) = accepted
        assert isinstance(certificate, dict)
        assert ("URI", "spiffe://longline/join/0123") in certificate["subjectAltName"]


def load(context: ssl.SSLContext, issued: Issued, folder: Path) -> None:
    path = folder / "both.pem"
    path.write_bytes(issued.certificate_pem + issued.key_pem)
    context.load_cert_chain(path)
