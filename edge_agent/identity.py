"""The box's own key and certificate: where they lie, whether they are still good, and how they are replaced."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tunnel.aio.credentials import ClientTls
from tunnel.aio.files import PUBLIC, write_atomic
from tunnel.aio.peer_identity import IdentityUnclear, identify_certificate

RENEW_AFTER = 2 / 3
"""Of the certificate's life: a third is left for a cloud that is away."""


class IdentityUnusable(Exception):
    """The box cannot show who it is; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Identity:
    """The files of a state folder."""

    folder: Path

    @property
    def key_path(self) -> Path:
        """The private key; it never leaves the box."""
        return self.folder / "agent.key"

    @property
    def certificate_path(self) -> Path:
        """The certificate with its chain."""
        return self.folder / "agent.crt"

    @property
    def ca_path(self) -> Path:
        """The authorities that the server is checked against."""
        return self.folder / "ca.crt"

    @property
    def tls(self) -> ClientTls:
        """What the box shows and whom it trusts."""
        return ClientTls(certificate=self.certificate_path, key=self.key_path, ca=self.ca_path)

    def certificate(self) -> x509.Certificate:
        """The box's certificate.

        Raises:
            IdentityUnusable: there is none.
        """
        try:
            return x509.load_pem_x509_certificate(self.certificate_path.read_bytes())
        except FileNotFoundError:
            raise IdentityUnusable(f"{self.certificate_path} does not exist: run edge-agent join first") from None
        except (OSError, ValueError) as error:
            raise IdentityUnusable(f"{self.certificate_path} cannot be read: {error}") from error

    def name(self) -> str:
        """The agent's name, from its certificate.

        Raises:
            IdentityUnusable: there is no certificate, it has run out, or it is not an agent's.
        """
        certificate = self.certificate()
        try:
            identity = identify_certificate(certificate, None)
        except IdentityUnclear as error:
            raise IdentityUnusable(f"{self.certificate_path}: {error}") from error
        if identity.role != "agent":
            raise IdentityUnusable(f"{self.certificate_path} is of role {identity.role}, not of an agent")
        if datetime.now(UTC) >= certificate.not_valid_after_utc:
            raise IdentityUnusable(
                f"{self.certificate_path} expired on {certificate.not_valid_after_utc:%Y-%m-%d}: "
                "run edge-agent join with a new token"
            )
        return identity.name

    def renewal_due(self) -> datetime:
        """When a fresh certificate should be asked for.

        Raises:
            IdentityUnusable: there is no certificate.
        """
        certificate = self.certificate()
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        return certificate.not_valid_before_utc + life * RENEW_AFTER

    def signing_request(self) -> bytes:
        """A certificate request for the key that is there; DER.

        Raises:
            IdentityUnusable: the key cannot be read.
        """
        try:
            key = serialization.load_pem_private_key(self.key_path.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise IdentityUnusable(f"{self.key_path} cannot be read: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise IdentityUnusable(f"{self.key_path} is not a key that edge-agent join made")
        return request_for(key)

    def replace_certificate(self, chain_pem: bytes, ca_pem: bytes) -> None:
        """Take a renewed certificate, each file whole or not at all.

        Raises:
            OSError: the folder cannot be written.
        """
        write_atomic(self.ca_path, ca_pem, PUBLIC)
        write_atomic(self.certificate_path, chain_pem, PUBLIC)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key for a box."""
    return ec.generate_private_key(ec.SECP256R1())


def request_for(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A certificate request; DER. Its subject says nothing: the server decides the name."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edge-agent")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def chain_pem(chain_der: list[bytes]) -> bytes:
    """Certificates of an answer as PEM, leaf first.

    Raises:
        ValueError: there is none, or one cannot be read.
    """
    if not chain_der:
        raise ValueError("the server sent no certificate")
    certificates = [x509.load_der_x509_certificate(der) for der in chain_der]
    return b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)
