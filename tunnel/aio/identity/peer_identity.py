"""Finds who is at the other end of a TLS connection: read from its certificate and from nothing else.

The certificate was already checked against the authority by TLS. What a role may do is decided by the caller.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote

from tunnel.aio.identity.certificate import CertificateUnreadable, read_certificate
from tunnel.aio.identity.spiffe import IdentityUnclear, only_uri, split_uri


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerIdentity:
    """A peer, as its certificate names it."""

    uri: str
    """The whole name, such as `spiffe://longline/agent/box-7`."""
    role: str
    """The role, one of `ROLES`."""
    name: str
    """Agent name, user name or token id; empty for a server."""
    spki_sha256: bytes
    """SHA-256 of the public key (SubjectPublicKeyInfo, DER)."""
    not_after: datetime
    """When the certificate ends; TLS looks at that only in the handshake."""


@dataclass(frozen=True, slots=True)
class Presented:
    """The certificate that a peer showed in the handshake, for whoever gives it another."""

    uri: str
    """As `PeerIdentity.uri`."""
    spki_sha256: bytes
    """As `PeerIdentity.spki_sha256`."""
    der: bytes
    """The certificate itself: its authority can see for itself that it has signed it."""

    @classmethod
    def of(cls, identity: PeerIdentity, auth_context: Mapping[str, Iterable[bytes]]) -> Presented:
        """Returns the certificate from gRPC's authentication context, of which `identity` was read."""
        return cls(identity.uri, identity.spki_sha256, _certificate(auth_context))


def identify(auth_context: Mapping[str, Iterable[bytes]], trust_domain: str) -> PeerIdentity:
    """Returns the identity of a peer, read from gRPC's authentication context.

    Raises:
        IdentityUnclear: there is no certificate, or it does not have exactly one URI name, or that is not one of ours.
    """
    # gRPC lists names of all kinds in one property, so that a DNS name could pass for a URI: read the certificate.
    return identify_certificate(_certificate(auth_context), trust_domain)


def identify_certificate(der: bytes, trust_domain: str | None) -> PeerIdentity:
    """Returns the identity that a certificate names; `trust_domain` None takes any, for a certificate of our own.

    Raises:
        IdentityUnclear: it does not have exactly one URI name, or that is not one of ours.
    """
    try:
        certificate = read_certificate(der)
    except CertificateUnreadable as fault:
        raise IdentityUnclear(str(fault)) from fault
    uri = only_uri(certificate.uris)
    role, name = split_uri(uri, trust_domain)
    return PeerIdentity(
        uri=uri,
        role=role,
        name=name,
        spki_sha256=hashlib.sha256(certificate.spki_der).digest(),
        not_after=certificate.validity.not_after,
    )


def readable_peer(grpc_peer: str) -> str:
    """Returns gRPC's name of a peer, `ipv4:192.0.2.1:443` or `ipv6:%5B::1%5D:443`, as people write it."""
    _, _, address = grpc_peer.partition(":")
    return unquote(address)


# Internal


def _certificate(auth_context: Mapping[str, Iterable[bytes]]) -> bytes:
    pem = next(iter(auth_context.get("x509_pem_cert", ())), None)
    if pem is None:
        raise IdentityUnclear("no certificate was presented")
    return ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))
