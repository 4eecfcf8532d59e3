"""The box's own key and certificate: where they lie, whose they are, and how they are replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tunnel.aio.credentials import ClientTls
from tunnel.aio.files import PUBLIC, SECRET, NewFile, write_together
from tunnel.aio.peer_identity import IdentityUnclear, identify_certificate
from tunnel.core.names import is_agent_name

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

        One that has run out is no reason to stop: the clock may be wrong, and `edge-agent join` may replace it at any
        time. A dial with it says so.

        Raises:
            IdentityUnusable: there is no certificate, or it is not an agent's.
        """
        try:
            return _agent_name(self.certificate())
        except IdentityUnclear as error:
            raise IdentityUnusable(f"{self.certificate_path}: {error}") from error

    def renewal_due(self) -> datetime:
        """When a fresh certificate should be asked for.

        Raises:
            IdentityUnusable: there is no certificate.
        """
        certificate = self.certificate()
        life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
        return certificate.not_valid_before_utc + life * RENEW_AFTER

    def key(self) -> ec.EllipticCurvePrivateKey:
        """The private key.

        Raises:
            IdentityUnusable: it cannot be read.
        """
        try:
            key = serialization.load_pem_private_key(self.key_path.read_bytes(), None)
        except (OSError, ValueError, TypeError) as error:
            raise IdentityUnusable(f"{self.key_path} cannot be read: {error}") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise IdentityUnusable(f"{self.key_path} is not a key that edge-agent join made")
        return key

    def replace(self, answer: Answer, key: ec.EllipticCurvePrivateKey | None = None) -> None:
        """Take a new certificate, and a new key with it after a join; all of the files or none.

        Raises:
            OSError: the folder cannot be written; nothing was changed.
        """
        files = [
            NewFile(self.ca_path, answer.ca_pem, PUBLIC),
            NewFile(self.certificate_path, answer.certificate_pem, PUBLIC),
        ]
        if key is not None:
            files.insert(0, NewFile(self.key_path, _key_pem(key), SECRET))
        write_together(files)


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key for a box."""
    return ec.generate_private_key(ec.SECP256R1())


def request_for(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A certificate request; DER. Its subject says nothing: the server decides the name."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "edge-agent")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server answered to a certificate request, found to be of use."""

    name: str
    """The agent's."""
    certificate_pem: bytes
    """The certificate with its chain."""
    ca_pem: bytes


def check_answer(chain_der: Sequence[bytes], ca_pem: bytes, key: ec.EllipticCurvePrivateKey) -> Answer:
    """Look at an answer before it takes the place of anything.

    Raises:
        ValueError: with it, this box could not connect.
    """
    try:
        certificates = [x509.load_der_x509_certificate(der) for der in chain_der]
        x509.load_pem_x509_certificates(ca_pem)
    except ValueError as error:
        raise ValueError("the server sent a certificate that cannot be read") from error
    if not certificates or certificates[0].public_key() != key.public_key():
        raise ValueError("the server sent no certificate for this box's key")
    try:
        name = _agent_name(certificates[0])
    except IdentityUnclear as error:
        raise ValueError(f"the server sent a certificate of no use: {error}") from error
    pem = b"".join(certificate.public_bytes(serialization.Encoding.PEM) for certificate in certificates)
    return Answer(name=name, certificate_pem=pem, ca_pem=ca_pem)


# Internal


def _agent_name(certificate: x509.Certificate) -> str:
    identity = identify_certificate(certificate, None)
    if identity.role != "agent" or not is_agent_name(identity.name):
        raise IdentityUnclear(f"{identity.uri!r} is not the name of an agent")
    return identity.name


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
