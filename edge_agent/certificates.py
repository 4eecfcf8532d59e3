"""Keys and certificates in the making: what `edge-agent join` and a renewal need, and an agent at rest does not.

It brings the X.509 library, 10 MB of memory, and so is imported only when one of them happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edge_agent.identity import Identity, IdentityUnusable
from tunnel.aio.identity.peer_identity import identify_certificate
from tunnel.aio.identity.spiffe import IdentityUnclear
from tunnel.aio.process.files import PUBLIC, SECRET, NewFile, write_together
from tunnel.core.names import is_agent_name


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


def load_key(identity: Identity) -> ec.EllipticCurvePrivateKey:
    """The box's private key.

    Raises:
        IdentityUnusable: it cannot be read.
    """
    path = identity.key_path
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise IdentityUnusable(f"{path} cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise IdentityUnusable(f"{path} is not a key that edge-agent join made")
    return key


def replace(identity: Identity, answer: Answer, key: ec.EllipticCurvePrivateKey | None = None) -> None:
    """Take a new certificate, and a new key with it after a join; all of the files or none.

    Raises:
        OSError: the folder cannot be written; nothing was changed.
    """
    files = [
        NewFile(identity.ca_path, answer.ca_pem, PUBLIC),
        NewFile(identity.certificate_path, answer.certificate_pem, PUBLIC),
    ]
    if key is not None:
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        files.insert(0, NewFile(identity.key_path, pem, SECRET))
    write_together(files)


# Internal


def _agent_name(certificate: x509.Certificate) -> str:
    identity = identify_certificate(certificate.public_bytes(serialization.Encoding.DER), None)
    if identity.role != "agent" or not is_agent_name(identity.name):
        raise IdentityUnclear(f"{identity.uri!r} is not the name of an agent")
    return identity.name
