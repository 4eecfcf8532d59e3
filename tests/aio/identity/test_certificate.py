"""What is read of certificates, beside what the X.509 library says of the same ones."""

from __future__ import annotations

import datetime as dt
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from tests.support.pki import Authority
from tunnel.aio.identity.certificate import CertificateUnreadable, read_certificate, read_own

SIGNER = ec.generate_private_key(ec.SECP256R1())
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x" * 60)])
START = dt.datetime(1950, 1, 1, tzinfo=dt.UTC)
SUBJECTS: dict[str, CertificatePublicKeyTypes] = {
    "P-256": SIGNER.public_key(),
    "P-384": ec.generate_private_key(ec.SECP384R1()).public_key(),
    "RSA": rsa.generate_private_key(65537, 2048).public_key(),
    "Ed25519": ed25519.Ed25519PrivateKey.generate().public_key(),
}
MIXED = [
    x509.DNSName("spiffe://longline/agent/no"),
    x509.UniformResourceIdentifier("spiffe://longline/agent/box-7"),
    x509.RFC822Name("a@example.org"),
    x509.DirectoryName(NAME),
    x509.UniformResourceIdentifier("https://example.org/"),
]


def made(
    *, names: list[x509.GeneralName] | None = None, end: dt.datetime | None = None, key: str = "P-256"
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(NAME)
        .issuer_name(NAME)
        .public_key(SUBJECTS[key])
        .serial_number(x509.random_serial_number())
        .not_valid_before(START)
        .not_valid_after(end or dt.datetime(2031, 2, 3, 4, 5, 6, tzinfo=dt.UTC))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(SIGNER, hashes.SHA256())


@pytest.mark.parametrize("key", SUBJECTS)
def test_the_key_of_every_kind(key: str) -> None:
    certificate = made(key=key)
    read = read_certificate(certificate.public_bytes(Encoding.DER))
    expected = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert read.spki_der == expected


def test_only_names_that_are_uris() -> None:
    read = read_certificate(made(names=MIXED).public_bytes(Encoding.DER))
    assert read.uris == ("spiffe://longline/agent/box-7", "https://example.org/")


def test_no_names() -> None:
    assert read_certificate(made().public_bytes(Encoding.DER)).uris == ()


# Two digits of a year up to 2049, four from 2050 on (RFC 5280, 4.1.2.5).
@pytest.mark.parametrize("year", [1950, 1968, 1999, 2000, 2049, 2050, 9999])
def test_ends_of_both_kinds_of_time(year: int) -> None:
    end = dt.datetime(year, 12, 31, 23, 59, 59, tzinfo=dt.UTC)
    assert read_certificate(made(end=end).public_bytes(Encoding.DER)).validity.not_after == end


def test_names_twice() -> None:
    der = made(names=MIXED[1:2]).public_bytes(Encoding.DER)
    # Another extension of the same length turns into a second one of the same kind.
    constraints, names = bytes.fromhex("0603551d13"), bytes.fromhex("0603551d11")
    assert der.count(constraints) == 1
    with pytest.raises(CertificateUnreadable, match="twice"):
        read_certificate(der.replace(constraints, names))


def test_a_name_that_is_not_ascii() -> None:
    der = made(names=MIXED[1:2]).public_bytes(Encoding.DER)
    with pytest.raises(CertificateUnreadable):
        read_certificate(der.replace(b"box-7", b"box-\xff"))


def test_cut_or_with_more_behind() -> None:
    der = made(names=MIXED).public_bytes(Encoding.DER)
    for end in range(len(der)):
        with pytest.raises(CertificateUnreadable):
            read_certificate(der[:end])
    with pytest.raises(CertificateUnreadable):
        read_certificate(der + b"\x05\x00")


WHOLE = made(names=MIXED).public_bytes(Encoding.DER)


@given(st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4))
def test_rubbish_is_refused_or_read_and_nothing_else(changes: list[tuple[int, int]]) -> None:
    der = bytearray(WHOLE)
    for position, value in changes:
        der[position] = value
    try:
        read = read_certificate(bytes(der))
    except CertificateUnreadable:
        return
    assert all(uri.isascii() for uri in read.uris)
    assert read.spki_der in bytes(der)


@pytest.mark.parametrize("ends_in", [dt.timedelta(days=1), dt.timedelta(days=-1)], ids=["good", "run out"])
def test_our_own_certificate_is_read_with_its_key_beside_it(ends_in: dt.timedelta) -> None:
    authority = Authority()
    issued = authority.issue(uris=["spiffe://longline/agent/box-7"], hosts=["box.example"], ends_in=ends_in)
    seen = read_own(issued.certificate_pem + authority.pem, issued.key_pem)
    known = x509.load_pem_x509_certificate(issued.certificate_pem)
    assert seen.uris == ("spiffe://longline/agent/box-7",)
    assert seen.validity.not_before == known.not_valid_before_utc
    assert seen.validity.not_after == known.not_valid_after_utc


def test_a_certificate_with_another_key_is_not_our_own() -> None:
    one, other = Authority().issue(), Authority().issue()
    for certificate, key in ((one.certificate_pem, other.key_pem), (one.certificate_pem, b""), (b"", one.key_pem)):
        with pytest.raises(ssl.SSLError):
            read_own(certificate, key)
