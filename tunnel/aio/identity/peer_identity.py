"""Who is at the other end of a TLS connection: read from its certificate and from nothing else.

The certificate was already checked against the authority by TLS. What a role may do is decided by the caller.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from tunnel.aio.identity.spiffe import IdentityUnclear, only_uri, split_uri


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerIdentity:
    """A peer, as its certificate names it."""

    uri: str
    """The whole name, e.g. `spiffe://longline/agent/box-7`."""
    role: str
    """One of `ROLES`."""
    name: str
    """Agent name, user name or token id; empty for a server."""
    spki_sha256: bytes
    """SHA-256 of the public key (SubjectPublicKeyInfo, DER)."""
    not_after: datetime
    """When the certificate ends; TLS looks at that only in the handshake."""


def identify(auth_context: Mapping[str, Iterable[bytes]], trust_domain: str) -> PeerIdentity:
    """Read the identity from gRPC's authentication context.

    Raises:
        IdentityUnclear: there is no certificate, or it does not have exactly one URI name, or that is not one of ours.
    """
    # gRPC lists names of all kinds in one property, so that a DNS name could pass for a URI: parse the certificate.
    pem = next(iter(auth_context.get("x509_pem_cert", ())), None)
    if pem is None:
        raise IdentityUnclear("no certificate was presented")
    return identify_certificate(x509.load_pem_x509_certificate(pem), trust_domain)


def identify_certificate(certificate: x509.Certificate, trust_domain: str | None) -> PeerIdentity:
    """Read the identity from a certificate; `trust_domain` None takes any, for a certificate of our own.

    Raises:
        IdentityUnclear: it does not have exactly one URI name, or that is not one of ours.
    """
    uri = _only_uri(certificate)
    role, name = split_uri(uri, trust_domain)
    return PeerIdentity(
        uri=uri,
        role=role,
        name=name,
        spki_sha256=spki_sha256(certificate.public_key()),
        not_after=certificate.not_valid_after_utc,
    )


def spki_sha256(public_key: CertificatePublicKeyTypes) -> bytes:
    """The SHA-256 of a public key (SubjectPublicKeyInfo, DER), by which keys are told apart."""
    der = public_key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).digest()


def readable_peer(grpc_peer: str) -> str:
    """GRPC's `ipv4:192.0.2.1:443` or `ipv6:%5B::1%5D:443` as people write it."""
    _, _, address = grpc_peer.partition(":")
    return unquote(address)


# Internal


def _only_uri(certificate: x509.Certificate) -> str:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    except ValueError as fault:
        raise IdentityUnclear("the certificate's alternative names cannot be read") from fault
    return only_uri(uris)
