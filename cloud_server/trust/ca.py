"""Longline's own certificate authority: one key in the state folder, for servers, agents, users and join tokens."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud_server.trust.hosts import names_for
from cloud_server.trust.state_files import CA_FILE, CA_KEY_FILE
from tunnel.aio.process.files import PUBLIC, SECRET, NewFile
from tunnel.core.wire.faults import AUTHORITY_MISSING, FaultError

CA_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=825)
"""How long a server's certificate is valid: the longest that common TLS clients accept. Like the authority's own, it is
renewed at two thirds of that.
"""
USER_LIFE = timedelta(days=365)
AGENT_LIFE = timedelta(days=7)
"""How long an agent's certificate is valid. It is short, since it is renewed at two thirds of its life without anyone's
doing.
"""
CLOCK_SKEW = timedelta(minutes=5)
"""How long before it was made a certificate is valid already: boxes have poor clocks."""

CertificateKey = ec.EllipticCurvePrivateKey
PublicKey = ec.EllipticCurvePublicKey


class CaMissing(FaultError):
    """There is no usable authority in the state folder; the text says how to get one."""

    default_fault = AUTHORITY_MISSING


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate with the key that was made for it."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)


class CertificateAuthority:
    """An authority that signs certificates which carry a `spiffe://` name."""

    def __init__(self, certificate: x509.Certificate, key: CertificateKey, trust_domain: str) -> None:
        self.certificate = certificate
        self._key = key
        self._trust_domain = trust_domain

    @classmethod
    def create(cls, trust_domain: str) -> CertificateAuthority:
        """Makes a new authority, which nothing keeps until its `files` are written."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = f"Longline CA {trust_domain} {datetime.now(UTC):%Y-%m-%d}"
        return cls(_self_signed(key, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])), key, trust_domain)

    def renewed(self) -> CertificateAuthority:
        """Returns the same authority for another life. With its key and name, all that it ever signed holds under both
        certificates, so that agents and users may get the new one whenever they renew their own.
        """
        return CertificateAuthority(_self_signed(self._key, self.certificate.subject), self._key, self._trust_domain)

    @staticmethod
    def exists(folder: Path) -> bool:
        """Returns whether a state folder has an authority: replacing it would lock out every agent."""
        return (folder / CA_KEY_FILE).exists() or (folder / CA_FILE).exists()

    @classmethod
    def load(cls, folder: Path, trust_domain: str) -> CertificateAuthority:
        """Returns the authority of a state folder.

        Raises:
            CaMissing: there is none, or it cannot be read.
        """
        try:
            certificate = x509.load_pem_x509_certificate((folder / CA_FILE).read_bytes())
            key = serialization.load_pem_private_key((folder / CA_KEY_FILE).read_bytes(), None)
        except FileNotFoundError as error:
            raise CaMissing(f"{error.filename} does not exist: run cloud-server init first") from error
        except OSError as error:
            raise CaMissing(f"{error.filename} cannot be read: {error.strerror}") from error
        except (ValueError, TypeError) as error:
            names = f"{CA_FILE} and {CA_KEY_FILE}"
            raise CaMissing(f"no usable certificate authority in {folder}: bring its {names} back ({error})") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise CaMissing(f"{folder / CA_KEY_FILE} is not a key that cloud-server init made")
        if key.public_key() != certificate.public_key():
            raise CaMissing(f"{folder / CA_KEY_FILE} is not the key of {folder / CA_FILE}")
        return cls(certificate, key, trust_domain)

    def files(self, folder: Path) -> list[NewFile]:
        """Returns the files that `load` reads."""
        return [
            NewFile(folder / CA_KEY_FILE, key_pem(self._key), SECRET),
            NewFile(folder / CA_FILE, self.pem, PUBLIC),
        ]

    @property
    def pem(self) -> bytes:
        """Returns the authority's certificate as PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def issue_server(self, hosts: Sequence[str]) -> Issued:
        """Returns a new certificate of a server, with its key, for these hosts and for the machine itself."""
        names = [general_name(host) for host in names_for(hosts)]
        return self._issue_new("server", names, SERVER_LIFE, server=True)

    def issue_user(self, name: str) -> Issued:
        """Returns a new certificate of a user, with its key."""
        return self._issue_new(f"user/{name}", [], USER_LIFE)

    def issue_join(self, token_id: str, life: timedelta) -> Issued:
        """Returns a new certificate to put into a join token, with its key: it opens nothing but Join."""
        return self._issue_new(f"join/{token_id}", [], life)

    def issue_agent(self, name: str, public_key: PublicKey) -> bytes:
        """Returns a new certificate of an agent, for the key that it made on its box, as PEM."""
        return self._sign(f"agent/{name}", public_key, [], AGENT_LIFE)

    # Internal

    def _issue_new(self, path: str, names: list[x509.GeneralName], life: timedelta, *, server: bool = False) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        return Issued(self._sign(path, key.public_key(), names, life, server=server), key_pem(key))

    def _sign(
        self,
        path: str,
        public_key: PublicKey,
        names: list[x509.GeneralName],
        life: timedelta,
        *,
        server: bool = False,
    ) -> bytes:
        now = datetime.now(UTC)
        uri = x509.UniformResourceIdentifier(f"spiffe://{self._trust_domain}/{path}")
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if server:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, path.rpartition("/")[2][:64])]))
            .issuer_name(self.certificate.subject)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - CLOCK_SKEW)
            .not_valid_after(min(now + life, self.certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName([uri, *names]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM)


def _self_signed(key: CertificateKey, name: x509.Name) -> x509.Certificate:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def key_pem(key: CertificateKey) -> bytes:
    """Returns a private key as PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def spki_sha256(key: PublicKey) -> bytes:
    """Returns the SHA-256 of a public key (SubjectPublicKeyInfo, DER), by which keys are told apart."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(der).digest()


def general_name(host: str) -> x509.GeneralName:
    """Returns a name or address as certificates hold it."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
