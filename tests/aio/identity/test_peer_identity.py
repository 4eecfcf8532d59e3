from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support.pki import Authority
from tunnel.aio.identity.peer_identity import identify, identify_certificate, readable_peer
from tunnel.aio.identity.spiffe import IdentityUnclear

AUTHORITY = Authority()


def test_the_identity_is_read_from_the_certificate() -> None:
    leaf = AUTHORITY.issue(uris=["spiffe://example.org/user/ann"], hosts=["box.example.org"])
    identity = identify({"x509_pem_cert": [leaf.certificate_pem]}, "example.org")
    spki = leaf.certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert (identity.role, identity.name) == ("user", "ann")
    assert identity.uri == "spiffe://example.org/user/ann"
    assert identity.spki_sha256 == hashlib.sha256(spki).digest()
    assert identity.not_after == leaf.certificate.not_valid_after_utc


def test_a_server_has_no_name() -> None:
    assert identify_certificate(AUTHORITY.issue(uris=["spiffe://longline/server"]).der, "longline").name == ""


@pytest.mark.parametrize(
    "uri",
    [
        "spiffe://longline/server/x",
        "spiffe://longline/agent/",
        "spiffe://longline//agent/x",
        "spiffe://longline/",
        "spiffe://longline",
        "spiffe:///agent/x",
        "spiffe://longline.evil/agent/x",
        "spiffe://evil@longline/agent/x",
        "SPIFFE://longline/agent/x",
        "spiffe://longline/Agent/x",
        "spiffe://longline/agent/x/../y",
    ],
)
def test_names_that_are_not_ours(uri: str) -> None:
    with pytest.raises(IdentityUnclear):
        identify_certificate(AUTHORITY.issue(uris=[uri]).der, "longline")


def test_rubbish_for_a_certificate() -> None:
    with pytest.raises(IdentityUnclear, match="cannot be read"):
        identify_certificate(b"rubbish", "longline")


def test_no_certificate() -> None:
    with pytest.raises(IdentityUnclear, match="no certificate"):
        identify({}, "longline")


@pytest.mark.parametrize(
    ("grpc_peer", "readable"),
    [("ipv4:192.0.2.1:443", "192.0.2.1:443"), ("ipv6:%5B2001:db8::1%5D:443", "[2001:db8::1]:443")],
)
def test_peers_as_people_write_them(grpc_peer: str, readable: str) -> None:
    assert readable_peer(grpc_peer) == readable
