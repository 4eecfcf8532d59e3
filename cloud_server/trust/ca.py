"""Holds Longline's own certificate authority: one key in the state folder, for servers, agents,
users and join tokens.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud_server.trust.hosts import names_for
from cloud_server.trust.state_files import CA_BESIDE_KEY_FILE, CA_FILE, CA_KEY_FILE, CROSS_FILE
from tunnel.aio.process.files import PUBLIC, SECRET, NewFile
from tunnel.core.wire.faults import AUTHORITY_MISSING, FaultError

CA_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=825)
"""How long a server's certificate is valid: the longest that common TLS clients accept. Like the authority's own, it is
renewed at two thirds of that.
"""
AGENT_LIFE = timedelta(days=7)
"""How long an agent's certificate is valid. It is short, since it is renewed at two thirds of its life without anyone's
doing.
"""
RECOVERY_LIFE = CA_LIFE
"""How long a recovery certificate is valid. A box may be off for years; what this certificate opens is nothing but the
question for another one."""
MAX_DOMAIN_CHARS = 30
"""The most characters of a trust domain in the name of an authority, which may have 64 (RFC 5280, upper bounds)."""
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

    def __init__(
        self,
        certificate: x509.Certificate,
        key: CertificateKey,
        trust_domain: str,
        beside: Sequence[x509.Certificate] = (),
        cross: Sequence[x509.Certificate] = (),
    ) -> None:
        """Takes a certificate and its key.

        `beside` are authorities that are trusted, too, and sign nothing; `cross` are certificates of authorities that
        others before them signed.
        """
        self.certificate = certificate
        self.beside = tuple(beside)
        self.cross = tuple(cross)
        self._key = key
        self._trust_domain = trust_domain

    @classmethod
    def create(cls, trust_domain: str) -> CertificateAuthority:
        """Makes a new authority, which nothing keeps until its `files` are written."""
        key = ec.generate_private_key(ec.SECP256R1())
        # The digits tell apart two of one day, which TLS would have to tell apart by their keys.
        digits = spki_sha256(key.public_key()).hex()[:8]
        name = f"Longline CA {trust_domain[:MAX_DOMAIN_CHARS]} {datetime.now(UTC):%Y-%m-%d} {digits}"
        return cls(_self_signed(key, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])), key, trust_domain)

    def renewed(self) -> CertificateAuthority:
        """Returns the same authority for another life. With its key and name, all that it ever signed holds under both
        certificates, so that agents and users may get the new one whenever they renew their own.
        """
        certificate = _self_signed(self._key, self.certificate.subject)
        return CertificateAuthority(certificate, self._key, self._trust_domain, self.beside, self.cross)

    def again(self, folder: Path) -> CertificateAuthority:
        """Returns the authority that a state folder has now. Another process may have changed it.

        Raises:
            CaMissing: there is none, or it cannot be read.
        """
        return CertificateAuthority.load(folder, self._trust_domain)

    def cross_signed(self, other: x509.Certificate) -> x509.Certificate:
        """Returns a certificate of another authority's name and key, signed by this one.

        Whoever trusts this one sees in it that this one agreed.
        """
        key = other.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        end = min(other.not_valid_after_utc, self.certificate.not_valid_after_utc)
        return _authority_certificate(other.subject, key, self.certificate.subject, self._key, end)

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
            certificate, *beside = x509.load_pem_x509_certificates((folder / CA_FILE).read_bytes())
            key = cls.key_for(certificate, folder)
            cross_pem = _read(folder / CROSS_FILE)
            cross = x509.load_pem_x509_certificates(cross_pem) if cross_pem else []
        except FileNotFoundError as error:
            raise CaMissing(f"{error.filename} does not exist: run cloud-server init first") from error
        except OSError as error:
            raise CaMissing(f"{error.filename} cannot be read: {error.strerror}") from error
        except (ValueError, TypeError) as error:
            names = f"{CA_FILE} and {CA_KEY_FILE}"
            raise CaMissing(f"no usable certificate authority in {folder}: bring its {names} back ({error})") from error
        return cls(certificate, key, trust_domain, beside, cross)

    @staticmethod
    def key_for(certificate: x509.Certificate, folder: Path) -> CertificateKey:
        """Returns the key of an authority.

        There are two keys while one authority takes the place of the other: the one that fits is returned.

        Raises:
            OSError, ValueError, TypeError: the key cannot be read.
            CaMissing: the key belongs to another authority.
        """
        first: object = serialization.load_pem_private_key((folder / CA_KEY_FILE).read_bytes(), None)
        second = _read(folder / CA_BESIDE_KEY_FILE)
        for key in (first, serialization.load_pem_private_key(second, None) if second else None):
            if isinstance(key, ec.EllipticCurvePrivateKey) and key.public_key() == certificate.public_key():
                return key
        if not isinstance(first, ec.EllipticCurvePrivateKey):
            raise CaMissing(f"{folder / CA_KEY_FILE} is not a key that cloud-server init made")
        raise CaMissing(f"{folder / CA_KEY_FILE} is not the key of {folder / CA_FILE}")

    @property
    def key_pem(self) -> bytes:
        """Returns the authority's private key as PEM, not encrypted."""
        return key_pem(self._key)

    def files(self, folder: Path) -> list[NewFile]:
        """Returns the files that `load` reads."""
        return [
            NewFile(folder / CA_KEY_FILE, self.key_pem, SECRET),
            NewFile(folder / CA_FILE, self.pem, PUBLIC),
        ]

    @property
    def pem(self) -> bytes:
        """Returns all that is to be trusted by whoever trusts this authority, as PEM: its certificate first, then those
        beside it.
        """
        return pem_of([self.certificate, *self.beside])

    def chain(self) -> list[x509.Certificate]:
        """Returns the certificates that lead from this authority to those before it, for whoever knows only one of
        those. Each was signed by the next one.
        """
        return list(self._chain())

    def issue_server(self, hosts: Sequence[str]) -> Issued:
        """Returns a new certificate of a server, with its key, for these hosts and for the machine itself."""
        names = [general_name(host) for host in names_for(hosts)]
        issued = self._issue_new("server", names, SERVER_LIFE, server=True)
        return Issued(issued.certificate_pem + pem_of(self.chain()), issued.key_pem)

    def issue_user(self, name: str, public_key: PublicKey, life: timedelta) -> bytes:
        """Returns a new certificate of a user, for the key that they made, as PEM."""
        return self._sign(f"user/{name}", public_key, [], life)

    def issue_join(self, token_id: str, life: timedelta, agent: str) -> Issued:
        """Returns a new certificate to put into a join token, with its key: it opens nothing but Join.

        `agent` is the name, or the pattern of names, that the token is for. The certificate says it, so that whoever
        signs for a box that shows it need not ask anybody.
        """
        return self._issue_new(f"join/{token_id}", [], life, agent=agent)

    def issue_agent(self, name: str, public_key: PublicKey) -> bytes:
        """Returns a new certificate of an agent, for the key that it made on its box, as PEM."""
        return self._sign(f"agent/{name}", public_key, [], AGENT_LIFE)

    def issue_recovery(self, name: str, public_key: PublicKey) -> bytes:
        """Returns a new certificate of an agent's key that opens nothing but Recover, for when the agent's own has
        ended, as PEM.
        """
        return self._sign(f"recover/{name}", public_key, [], RECOVERY_LIFE)

    # Internal

    def _chain(self) -> Iterator[x509.Certificate]:
        now, name = datetime.now(UTC), self.certificate.subject
        for one in self.cross:  # the newest first, so one look at each is enough
            if one.subject == name and now < one.not_valid_after_utc:
                yield one
                name = one.issuer

    def _issue_new(
        self, path: str, names: list[x509.GeneralName], life: timedelta, *, server: bool = False, agent: str = ""
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        return Issued(self._sign(path, key.public_key(), names, life, server=server, agent=agent), key_pem(key))

    def _sign(
        self,
        path: str,
        public_key: PublicKey,
        names: list[x509.GeneralName],
        life: timedelta,
        *,
        server: bool = False,
        agent: str = "",
    ) -> bytes:
        now = datetime.now(UTC)
        uri = x509.UniformResourceIdentifier(f"spiffe://{self._trust_domain}/{path}")
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, path.rpartition("/")[2][:64])]
        if agent:
            subject.append(x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, agent))
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if server:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
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
    return _authority_certificate(name, key.public_key(), name, key, datetime.now(UTC) + CA_LIFE)


def _authority_certificate(
    name: x509.Name, public_key: PublicKey, issuer: x509.Name, issuer_key: CertificateKey, end: datetime
) -> x509.Certificate:
    """Returns a certificate of an authority.

    The length of paths has no limit: one that takes this one's place stands below it.
    """
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - CLOCK_SKEW)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .sign(issuer_key, hashes.SHA256())
    )


def _read(path: Path) -> bytes:
    """Returns the content of a file; empty when there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def pem_of(certificates: Sequence[x509.Certificate]) -> bytes:
    """Returns several certificates as the PEM of one file."""
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in certificates)


def authority_id(certificate: x509.Certificate) -> str:
    """Returns what tells an authority from others, whichever of its certificates it is: the SHA-256 of its key, in
    hexadecimal.
    """
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return spki_sha256(key).hex()


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
