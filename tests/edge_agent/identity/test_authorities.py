"""Whom a box begins to trust: only whom one that it trusts has signed."""

from __future__ import annotations

import builtins
import shutil
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.trust.ca import CertificateAuthority, _self_signed
from edge_agent.identity.authorities import strange

DER = serialization.Encoding.DER


@pytest.fixture(params=["library", "openssl"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the X.509 library, and with the openssl program in its place."""
    if request.param == "library":
        return
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl program")
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        caller = (rest[0] or {}).get("__name__", "") if rest else ""
        if name.startswith("cryptography") and caller == "tunnel.aio.identity.keys":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)


def new() -> CertificateAuthority:
    return CertificateAuthority.create("longline")


def der(certificates: Sequence[x509.Certificate]) -> list[bytes]:
    return [one.public_bytes(DER) for one in certificates]


@pytest.mark.usefixtures("way")
def test_one_that_it_knows_one_renewed_and_one_that_it_signed() -> None:
    first, second, third = new(), new(), new()
    assert strange(first.pem, [], first.pem) == []
    assert strange(first.renewed().pem, [], first.pem) == [], "the same key and name, for another life"
    both = first.pem + second.pem
    crosses = der([first.cross_signed(second.certificate)])
    assert strange(both, crosses, first.pem) == []
    assert strange(second.renewed().pem, crosses, first.pem) == []
    crosses = der([second.cross_signed(third.certificate), first.cross_signed(second.certificate)])
    assert strange(third.pem, crosses, first.pem) == [], "it was away for two changes"


@pytest.mark.usefixtures("way")
def test_strangers() -> None:
    first, evil = new(), new()
    name = evil.certificate.subject.rfc4514_string()
    assert strange(first.pem + evil.pem, [], first.pem) == [name]
    assert strange(evil.pem, der([evil.cross_signed(evil.certificate)]), first.pem) == [name]
    assert strange(evil.pem, der([evil.certificate]), first.pem) == [name]
    key = ec.generate_private_key(ec.SECP256R1())
    copied = _self_signed(key, first.certificate.subject).public_bytes(serialization.Encoding.PEM)
    assert strange(copied, [], first.pem) == [first.certificate.subject.rfc4514_string()], "the name alone"


@pytest.mark.usefixtures("way")
def test_a_box_of_this_authority_is_none_itself() -> None:
    """Whoever has taken the server's process can have any key signed, as that of a box."""
    first, key = new(), ec.generate_private_key(ec.SECP256R1())
    leaf = x509.load_pem_x509_certificate(first.issue_agent("evil", key.public_key()))
    posing = _self_signed(key, leaf.subject)
    assert strange(posing.public_bytes(serialization.Encoding.PEM), der([leaf]), first.pem) == ["CN=evil"]
    assert strange(leaf.public_bytes(serialization.Encoding.PEM), [], first.pem) == ["CN=evil"]


@pytest.mark.usefixtures("way")
def test_a_same_key_whose_new_certificate_somebody_else_made() -> None:
    first, evil = new(), ec.generate_private_key(ec.SECP256R1())
    own = first.certificate
    forged = (
        x509.CertificateBuilder()
        .subject_name(own.subject)
        .issuer_name(own.subject)
        .public_key(own.public_key())
        .serial_number(1)
        .not_valid_before(own.not_valid_before_utc)
        .not_valid_after(own.not_valid_after_utc + timedelta(days=36500))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(evil, hashes.SHA256())
    )
    assert strange(forged.public_bytes(serialization.Encoding.PEM), [], first.pem) != []


def test_so_many_that_checking_them_would_take_long() -> None:
    first = new()
    with pytest.raises(ValueError, match="9 authorities"):
        strange(first.pem * 9, [], first.pem)
