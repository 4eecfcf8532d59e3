"""Reads what we need of a certificate: its names, its key, how long it is good, and who signed it.

TLS has read and checked a peer's certificate before; this only looks things up (RFC 5280, 4.1). The X.509 library would
do the same and more, and costs a process 12 MB, which a server at rest does without.
"""

from __future__ import annotations

import ipaddress
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from asn1crypto import parser

from tunnel.aio.identity.openssl import load_chain
from tunnel.aio.identity.validity import Validity
from tunnel.core.wire.faults import CERTIFICATE_UNREADABLE, FaultError

# Classes and tags of X.680 that a certificate uses on the way to them.
_UNIVERSAL, _CONTEXT = 0, 2
_BOOLEAN, _OCTETS, _OID, _SEQUENCE, _UTC_TIME, _GENERALIZED_TIME = 1, 4, 6, 16, 23, 24
_VERSION, _EXTENSIONS = 0, 3
"""The context tags of TBSCertificate."""
_DNS, _URI, _ADDRESS = 2, 6, 7
"""The context tags of GeneralName."""
_SHORT = {"common_name": "CN", "organization_name": "O", "organizational_unit_name": "OU", "country_name": "C"}
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SUBJECT_ALT_NAME = bytes.fromhex("551d11")
"""The OID of subjectAltName, 2.5.29.17."""
_TIME_FORMAT = "%Y%m%d%H%M%SZ"


class CertificateUnreadable(FaultError, ValueError):
    """The data is not what RFC 5280 calls a certificate."""

    default_fault = CERTIFICATE_UNREADABLE


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a certificate says."""

    uris: tuple[str, ...]
    """The URI names among its alternative names."""
    spki_der: bytes
    """Its public key (SubjectPublicKeyInfo)."""
    validity: Validity
    """The time in which it is valid, in UTC."""
    hosts: frozenset[str]
    """The DNS names, in lower case, and the addresses among its alternative names."""
    issuer_der: bytes
    subject_der: bytes


@dataclass(frozen=True, slots=True)
class _Element:
    kind: tuple[int, int]
    """The class and the tag."""
    content: bytes
    whole: bytes


def read_certificate(der: bytes) -> Certificate:
    """Returns what a certificate says.

    Raises:
        CertificateUnreadable: it cannot be read, or says something twice.
    """
    try:
        (certificate,) = _elements(der)
        to_be_signed = next(_inside(certificate))
        fields = [field for field in _inside(to_be_signed) if field.kind != (_CONTEXT, _VERSION)]
        _serial, _algorithm, issuer, validity, subject, spki = fields[:6]
        not_before, not_after = map(_time, _inside(validity))
        _expect(spki, _SEQUENCE)
        names = _names(fields[6:])
        return Certificate(
            uris=tuple(_text(name) for name in names if name.kind == (_CONTEXT, _URI)),
            spki_der=spki.whole,
            validity=Validity(not_before, not_after),
            hosts=frozenset(_hosts(names)),
            issuer_der=issuer.whole,
            subject_der=subject.whole,
        )
    except (ValueError, StopIteration, UnicodeDecodeError) as fault:
        raise CertificateUnreadable(f"the certificate cannot be read: {fault}") from fault


def read_own(certificate: bytes, key: bytes) -> Certificate:
    """Returns a certificate of ours, the first of its PEM file, once OpenSSL has found that the key belongs to it.

    Raises:
        ssl.SSLError: no certificate, no key, or they do not fit.
        CertificateUnreadable: OpenSSL takes it, and we cannot read it.
    """
    load_chain(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate + b"\n" + key)
    return read_pem(certificate)[0]


def read_pem(pem: bytes) -> list[Certificate]:
    """Returns every certificate of a PEM file, in its order; at least one.

    Raises:
        CertificateUnreadable: there is none, or one of them cannot be read.
    """
    try:
        found = [ssl.PEM_cert_to_DER_cert(block.decode("ascii")) for block in _PEM.findall(pem)]
    except ValueError as fault:
        raise CertificateUnreadable(f"the certificate cannot be read: {fault}") from fault
    if not found:
        raise CertificateUnreadable("there is no PEM certificate")
    return [read_certificate(der) for der in found]


def name_text(name_der: bytes) -> str:
    """Returns an issuer or subject as people read it, the last part first: `CN=box-7,O=Example`."""
    from asn1crypto.x509 import Name  # more than what at rest is needed

    try:
        parts = [part for group in Name.load(name_der).chosen for part in group]
        words = [f"{_SHORT.get(part['type'].native, part['type'].dotted)}={part['value'].native}" for part in parts]
    except (ValueError, TypeError) as fault:
        return f"a name that cannot be read ({fault})"
    return ",".join(reversed(words))


# Internal


def _elements(der: bytes) -> Iterator[_Element]:
    """Yields the elements that stand one after another."""
    while der:
        tag_class, _, tag, header, content, trailer = parser.parse(der)
        whole = header + content + trailer
        yield _Element((tag_class, tag), content, whole)
        der = der[len(whole) :]


def _inside(element: _Element) -> Iterator[_Element]:
    """Returns the elements of a sequence."""
    _expect(element, _SEQUENCE)
    return _elements(element.content)


def _expect(element: _Element, tag: int) -> None:
    if element.kind != (_UNIVERSAL, tag):
        raise ValueError(f"tag {element.kind} in place of {tag}")


def _names(after_key: list[_Element]) -> list[_Element]:
    """Returns the alternative names among what follows the key: two unique ids that nobody uses, and the extensions."""
    extensions = [
        extension
        for field in after_key
        if field.kind == (_CONTEXT, _EXTENSIONS)
        for sequence in _elements(field.content)
        for extension in _inside(sequence)
    ]
    values = [value for oid, value in map(_extension, extensions) if oid == _SUBJECT_ALT_NAME]
    if len(values) > 1:
        raise ValueError("it has alternative names twice")
    return [name for value in values for sequence in _elements(value) for name in _inside(sequence)]


def _hosts(names: list[_Element]) -> Iterator[str]:
    for name in names:
        if name.kind == (_CONTEXT, _DNS):
            yield _text(name).lower()
        elif name.kind == (_CONTEXT, _ADDRESS):
            yield str(ipaddress.ip_address(name.content))


def _text(name: _Element) -> str:
    return name.content.decode("ascii")


def _extension(extension: _Element) -> tuple[bytes, bytes]:
    """Returns the OID and the value of an extension."""
    oid, *critical, value = _inside(extension)
    _expect(oid, _OID)
    for flag in critical:
        _expect(flag, _BOOLEAN)
    _expect(value, _OCTETS)
    return oid.content, value.content


def _time(element: _Element) -> datetime:
    text = element.content.decode("ascii")
    if element.kind == (_UNIVERSAL, _UTC_TIME):
        # RFC 5280, 4.1.2.5.1: two digits from 50 on are of the last century; strptime has 69 there.
        text = ("19" if text[:2] >= "50" else "20") + text
    else:
        _expect(element, _GENERALIZED_TIME)
    return datetime.strptime(text, _TIME_FORMAT).replace(tzinfo=UTC)
