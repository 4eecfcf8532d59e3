"""Decides whom a box trusts from now on: only authorities that one which it trusts already has agreed to.

A server process that somebody has taken can answer a renewal with any authority. It has not got the key of ours (that
is in a process of its own), so what it cannot make is that authority's signature. Times are not looked at: the clock of
a box may be wrong, and what counts is who has signed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tunnel.aio.identity.certificate import Certificate, name_text, pem_blocks, read_certificate
from tunnel.aio.identity.keys import is_signed_by

MAX_AUTHORITIES = 8
"""The most authorities that are looked at: each takes a signature's check or two."""


def strange(ca_pem: bytes, cross_der: Sequence[bytes], trusted_pem: bytes) -> list[str]:
    """Returns the names of authorities that a box is told to trust, and has no reason to. Blocking.

    An authority is none of these when the box trusts it already; when one that it trusts has signed it, as the same
    authority's certificate for another life is; or when there is a cross certificate for its name and key, signed by
    one that the box trusts, or by another such authority.

    Raises:
        ValueError: a certificate cannot be read, or there are too many.
        KeysUnavailable: there is nothing to check signatures with.
    """
    trusted, offered = _read(pem_blocks(trusted_pem)), _read(pem_blocks(ca_pem))
    crosses = [one for one in _read(cross_der) if one.said.is_authority]
    agreed = list(trusted)
    while more := [one for one in crosses if one not in agreed and _signed_by_one(one, agreed)]:
        agreed += more
    known = {one.der for one in trusted}
    return [
        name_text(one.said.subject_der)
        for one in offered
        if one.der not in known
        and not (one.said.is_authority and (_signed_by_one(one, agreed) or _is_one(one, agreed)))
    ]


def is_of_one(certificate_der: bytes, ca_pem: bytes) -> bool:
    """Whether one of these authorities has signed a certificate. Blocking.

    Raises:
        ValueError, KeysUnavailable: as above.
    """
    (one,) = _read([certificate_der])
    return _signed_by_one(one, _read(pem_blocks(ca_pem)))


# Internal


@dataclass(frozen=True, slots=True)
class _Authority:
    der: bytes
    said: Certificate


def _read(ders: Iterable[bytes]) -> list[_Authority]:
    found = [_Authority(der, read_certificate(der)) for der in ders]
    if len(found) > MAX_AUTHORITIES:
        raise ValueError(f"it names {len(found)} authorities")
    return found


def _signed_by_one(one: _Authority, agreed: Iterable[_Authority]) -> bool:
    return any(
        one.said.issuer_der == other.said.subject_der and is_signed_by(one.der, other.said.spki_der) for other in agreed
    )


def _is_one(one: _Authority, agreed: Iterable[_Authority]) -> bool:
    """Returns whether an authority is another certificate of one of these, signed by itself."""
    same = any(
        (one.said.subject_der, one.said.spki_der) == (each.said.subject_der, each.said.spki_der) for each in agreed
    )
    return same and one.said.issuer_der == one.said.subject_der and is_signed_by(one.der, one.said.spki_der)
