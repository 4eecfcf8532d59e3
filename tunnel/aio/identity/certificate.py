"""The three things that we need of a peer's certificate: its URI names, its key and its end.

TLS has read and checked the certificate before; this only looks them up (RFC 5280, 4.1). The X.509 library would do the
same and more, and costs a process 12 MB, which a server at rest does without.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from asn1crypto import parser

# Classes and tags of X.680 that a certificate uses on the way to them.
_UNIVERSAL, _CONTEXT = 0, 2
_BOOLEAN, _OCTETS, _OID, _SEQUENCE, _UTC_TIME, _GENERALIZED_TIME = 1, 4, 6, 16, 23, 24
_VERSION, _EXTENSIONS = 0, 3
"""Context tags of TBSCertificate."""
_URI = 6
"""Context tag of GeneralName."""
_SUBJECT_ALT_NAME = bytes.fromhex("551d11")
"""2.5.29.17"""
_TIME_FORMAT = "%Y%m%d%H%M%SZ"


class CertificateUnreadable(ValueError):
    """It is not what RFC 5280 calls a certificate."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What it says."""

    uris: tuple[str, ...]
    """URI names among its alternative names."""
    spki_der: bytes
    """Its public key (SubjectPublicKeyInfo)."""
    not_after: datetime
    """Its end, in UTC."""


@dataclass(frozen=True, slots=True)
class _Element:
    kind: tuple[int, int]
    """Class and tag."""
    content: bytes
    whole: bytes


def read_certificate(der: bytes) -> Certificate:
    """Read a certificate.

    Raises:
        CertificateUnreadable: it cannot be, or says something twice.
    """
    try:
        (certificate,) = _elements(der)
        to_be_signed = next(_inside(certificate))
        fields = [field for field in _inside(to_be_signed) if field.kind != (_CONTEXT, _VERSION)]
        _serial, _algorithm, _issuer, validity, _subject, spki = fields[:6]
        _not_before, not_after = _inside(validity)
        _expect(spki, _SEQUENCE)
        return Certificate(_uris(fields[6:]), spki.whole, _time(not_after))
    except (ValueError, StopIteration, UnicodeDecodeError) as fault:
        raise CertificateUnreadable(f"the certificate cannot be read: {fault}") from fault


# Internal


def _elements(der: bytes) -> Iterator[_Element]:
    """The elements that stand one after another."""
    while der:
        tag_class, _, tag, header, content, trailer = parser.parse(der)
        whole = header + content + trailer
        yield _Element((tag_class, tag), content, whole)
        der = der[len(whole) :]


def _inside(element: _Element) -> Iterator[_Element]:
    """The elements of a sequence."""
    _expect(element, _SEQUENCE)
    return _elements(element.content)


def _expect(element: _Element, tag: int) -> None:
    if element.kind != (_UNIVERSAL, tag):
        raise ValueError(f"tag {element.kind} in place of {tag}")


def _uris(after_key: list[_Element]) -> tuple[str, ...]:
    """The URI names among what follows the key: two unique ids that nobody uses, and the extensions."""
    extensions = [
        extension
        for field in after_key
        if field.kind == (_CONTEXT, _EXTENSIONS)
        for sequence in _elements(field.content)
        for extension in _inside(sequence)
    ]
    names = [value for oid, value in map(_extension, extensions) if oid == _SUBJECT_ALT_NAME]
    if len(names) > 1:
        raise ValueError("it has alternative names twice")
    return tuple(
        name.content.decode("ascii")
        for value in names
        for sequence in _elements(value)
        for name in _inside(sequence)
        if name.kind == (_CONTEXT, _URI)
    )


def _extension(extension: _Element) -> tuple[bytes, bytes]:
    """OID and value."""
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
