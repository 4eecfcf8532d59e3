"""The box's own files: whose certificate it is, when it is due, and that a bad answer takes nothing's place."""

from __future__ import annotations

import datetime as dt
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.trust.ca import CertificateAuthority
from edge_agent.identity.certificates import Answer, AnswerRefused, check_answer, load_key, replace
from edge_agent.identity.identity import Identity, IdentityUnusable
from protos import tunnel_pb2
from tests.support.pki import Authority
from tunnel.aio.identity.keys import new_key

DAY = dt.timedelta(days=1)


@pytest.fixture(scope="module")
def authority() -> CertificateAuthority:
    return CertificateAuthority.create("longline")


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    return Identity(tmp_path)


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)


def public(key_pem: bytes) -> ec.EllipticCurvePublicKey:
    key = serialization.load_pem_private_key(key_pem, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.public_key()


def answered(chain_der: list[bytes], authority: CertificateAuthority) -> tunnel_pb2.RenewResponse:
    return tunnel_pb2.RenewResponse(chain_der=chain_der, ca_pem=authority.pem, generation=1)


def answer_for(authority: CertificateAuthority, key: bytes) -> Answer:
    return check_answer(answered([der(authority.issue_agent("box-7", public(key)))], authority), key, authority.pem)


def test_it_is_read_back_as_it_was_taken(identity: Identity, authority: CertificateAuthority) -> None:
    key = new_key()
    replace(identity, answer_for(authority, key), key)
    assert identity.name() == "box-7"
    assert load_key(identity.key_path) == key
    identity.tls.load()
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in identity.folder.iterdir()}
    assert modes == {"agent.key": 0o600, "agent.crt": 0o644, "ca.crt": 0o644, "renewals.json": 0o600}


def test_a_renewed_certificate_leaves_the_key_alone(identity: Identity, authority: CertificateAuthority) -> None:
    key = new_key()
    replace(identity, answer_for(authority, key), key)
    before = identity.key_path.read_bytes(), identity.certificate_path.read_bytes()
    replace(identity, answer_for(authority, load_key(identity.key_path)))
    assert identity.key_path.read_bytes() == before[0]
    assert identity.certificate_path.read_bytes() != before[1]
    identity.tls.load()


def test_a_folder_that_cannot_be_written_keeps_what_it_has(identity: Identity, authority: CertificateAuthority) -> None:
    key, other = new_key(), new_key()
    replace(identity, answer_for(authority, key), key)
    identity.certificate_path.unlink()
    identity.certificate_path.mkdir()  # a rename onto it fails
    (identity.certificate_path / "file").touch()
    with pytest.raises(OSError, match="directory"):
        replace(identity, answer_for(authority, other))
    assert load_key(identity.key_path) == key
    assert sorted(path.name for path in identity.folder.iterdir()) == [
        "agent.crt",
        "agent.key",
        "ca.crt",
        "renewals.json",
    ]


def test_two_thirds_of_a_life(identity: Identity) -> None:
    authority = Authority()
    for starts, ends, due in ((-DAY, 2 * DAY, DAY), (-2 * DAY, DAY, dt.timedelta()), (-3 * DAY, -DAY, -DAY * 5 / 3)):
        issued = authority.issue(uris=["spiffe://longline/agent/box-7"], starts_in=starts, ends_in=ends)
        identity.certificate_path.write_bytes(issued.certificate_pem)
        identity.key_path.write_bytes(issued.key_pem)
        assert abs(identity.renewal_due() - dt.datetime.now(dt.UTC) - due) < dt.timedelta(minutes=1)
        assert identity.name() == "box-7"


def test_a_box_that_has_not_joined(identity: Identity) -> None:
    for use in (identity.name, identity.renewal_due):
        with pytest.raises(IdentityUnusable, match="run edge-agent join first"):
            use()
    with pytest.raises(IdentityUnusable, match=r"agent\.key cannot be read"):
        load_key(identity.key_path)
    identity.certificate_path.write_text("rubbish")
    identity.key_path.write_text("rubbish")
    with pytest.raises(IdentityUnusable, match=r"agent\.crt cannot be read: no PEM certificate with its key"):
        identity.name()


@pytest.mark.parametrize(
    "uris",
    [
        [],
        ["spiffe://longline/user/ann"],
        ["spiffe://longline/agent/Box"],
        ["spiffe://longline/agent/\x1b[31m"],
        ["spiffe://longline/server"],
        ["spiffe://longline/agent/a", "spiffe://longline/agent/b"],
        ["https://longline/agent/a"],
    ],
)
def test_a_certificate_that_is_no_agents(identity: Identity, uris: list[str]) -> None:
    issued = Authority().issue(uris=uris)
    identity.certificate_path.write_bytes(issued.certificate_pem)
    identity.key_path.write_bytes(issued.key_pem)
    with pytest.raises(IdentityUnusable, match=r"URI name|is not the name of an agent") as caught:
        identity.name()
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("label", [b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"])
@pytest.mark.parametrize("kind", [tunnel_pb2.JoinResponse, tunnel_pb2.RenewResponse])
def test_an_authority_under_another_label_is_not_kept(
    identity: Identity,
    authority: CertificateAuthority,
    label: bytes,
    kind: type[tunnel_pb2.JoinResponse | tunnel_pb2.RenewResponse],
) -> None:
    """OpenSSL loads it, and so do gRPC's roots: what nobody has looked at must not get into the file."""
    key, evil = new_key(), CertificateAuthority.create("EVIL")
    hidden = evil.pem.replace(b"CERTIFICATE", label)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    identity.ca_path.write_bytes(authority.pem + hidden)
    context.load_verify_locations(identity.ca_path)
    assert context.cert_store_stats()["x509_ca"] == 2
    answer = kind(
        chain_der=[der(authority.issue_agent("box-7", public(key)))], ca_pem=b"# told\n" + authority.pem + hidden
    )
    if isinstance(answer, tunnel_pb2.RenewResponse):
        answer.generation = 1
    assert check_answer(answer, key, authority.pem).ca_pem == authority.pem
    answer.ca_pem = hidden
    with pytest.raises(AnswerRefused, match="cannot be read"):
        check_answer(answer, key, authority.pem)


def test_answers_that_would_lock_the_box_out(authority: CertificateAuthority) -> None:
    key, other = new_key(), new_key()
    good, foreign = (der(authority.issue_agent("box-7", public(each))) for each in (key, other))
    user = der(Authority().issue(uris=["spiffe://longline/user/ann"]).certificate_pem)
    assert check_answer(answered([good, user], authority), key, authority.pem).name == "box-7"
    for chain, ca, said in (
        ([], authority.pem, "no certificate for this box's key"),
        ([foreign], authority.pem, "no certificate for this box's key"),
        ([user], authority.pem, "no certificate for this box's key"),
        ([b"rubbish"], authority.pem, "cannot be read"),
        ([good, b""], authority.pem, "cannot be read"),
        ([good], b"", "cannot be read"),
        ([good], b"rubbish", "cannot be read"),
        ([der(authority.issue_agent("Box", public(key)))], authority.pem, "is not the name of an agent"),
    ):
        with pytest.raises(ValueError, match=said):
            check_answer(tunnel_pb2.RenewResponse(chain_der=chain, ca_pem=ca, generation=1), key, authority.pem)
