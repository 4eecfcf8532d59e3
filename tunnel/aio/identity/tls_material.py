"""TLS material of either end: it is read from files or given as PEM, and checked to fit together.

Both sides always present a certificate and always check the other's. Who the peer is, is decided in `peer_identity.py`.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from tunnel.aio.identity.openssl import check_material
from tunnel.core.wire.faults import CREDENTIALS_UNUSABLE, FaultError

Pem = Path | bytes
"""A file that holds PEM, or the PEM itself."""


class CredentialsUnusable(FaultError):
    """A certificate, key or CA file cannot be read or does not fit; the text names the file and the fault."""

    default_fault = CREDENTIALS_UNUSABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedTls:
    """Certificate, key and CA as PEM, checked to parse and to fit together."""

    certificate: bytes
    key: bytes = field(repr=False)
    ca: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """The certificate that a server shows, and the authorities that it trusts.

    Files are read again when they change.
    """

    certificate: Pem
    """The certificate chain: leaf first, then intermediates."""
    key: Pem = field(repr=False)
    client_ca: Pem
    """The authorities whose client certificates are accepted."""

    def load(self) -> LoadedTls:
        """Reads everything and checks that it fits together. Blocking.

        Raises:
            CredentialsUnusable: a file cannot be read, or the material does not fit together.
        """
        return _load(self.certificate, self.key, self.client_ca)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """The certificate that a box shows, and the authorities that it trusts. Files are read anew for each dial."""

    certificate: Pem
    """The certificate chain: leaf first, then intermediates."""
    key: Pem = field(repr=False)
    ca: Pem
    """The authorities whose server certificates are accepted."""

    def load(self) -> LoadedTls:
        """Reads everything and checks that it fits together. Blocking.

        Raises:
            CredentialsUnusable: a file cannot be read, or the material does not fit together.
        """
        return _load(self.certificate, self.key, self.ca)


# Internal


def _load(certificate: Pem, key: Pem, ca: Pem) -> LoadedTls:
    loaded = LoadedTls(certificate=_read(certificate), key=_read(key), ca=_read(ca))
    try:
        check_material(loaded.certificate, loaded.key, loaded.ca)
    except (ssl.SSLError, ValueError) as fault:
        from tunnel.aio.identity.material_faults import name_fault  # brings the X.509 library

        names = _name(certificate, "the certificate"), _name(key, "the key"), _name(ca, "the CA")
        text = name_fault((loaded.certificate, loaded.key, loaded.ca), names)
        raise CredentialsUnusable(text or f"{', '.join(names)}: not usable for TLS: {fault}") from fault
    return loaded


def _read(pem: Pem) -> bytes:
    if isinstance(pem, bytes):
        return pem
    try:
        return pem.read_bytes()
    except OSError as fault:
        raise CredentialsUnusable(f"cannot read {pem}: {fault.strerror}") from fault


def _name(source: Pem, otherwise: str) -> str:
    return str(source) if isinstance(source, Path) else otherwise
