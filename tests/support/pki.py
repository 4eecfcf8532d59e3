"""A certificate authority for tests: any certificate, good or bad, in one call.

It knows X.509 and nothing of Longline's own issuing code, so that the two can be tested against each other.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = dt.timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate with its key, both as PEM."""

    certificate_pem: bytes
    key_pem: bytes

    @property
    def certificate(self) -> x509.Certificate:
        """The parsed certificate."""
        return x509.load_pem_x509_certificate(self.certificate_pem)

    @property
    def der(self) -> bytes:
        """The certificate as TLS shows it."""
        return self.certificate.public_bytes(serialization.Encoding.DER)

    def write(self, folder: Path, stem: str) -> tuple[Path, Path]:
        """Write `stem.crt` and `stem.key`; returns both paths."""
        certificate, key = folder / f"{stem}.crt", folder / f"{stem}.key"
        certificate.write_bytes(self.certificate_pem)
        key.write_bytes(self.key_pem)
        return certificate, key


class Authority:
    """One certificate authority with its own key."""

    def __init__(self, common_name: str = "test CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        self._certificate = self._sign_itself()

    @property
    def pem(self) -> bytes:
        """The authority's own certificate, what others are to trust."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def issue(
        self,
        *,
        uris: Iterable[str] = (),
        hosts: Iterable[str] = (),
        usage: Iterable[x509.ObjectIdentifier] | None = None,
        starts_in: dt.timedelta = -_DAY,
        ends_in: dt.timedelta = _DAY,
        common_name: str = "test",
        organization: str = "",
    ) -> Issued:
        """Issue a leaf certificate with a fresh key.

        Args:
            uris: URI names, e.g. `spiffe://longline/agent/box-7`.
            hosts: DNS names and IP addresses.
            usage: extended key usages; None means both TLS client and TLS server.
            starts_in: begin of validity, from now.
            ends_in: end of validity, from now; negative makes an expired certificate.
            common_name: subject.
            organization: more of the subject: a Kubernetes group; empty for none.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        both = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
        subject = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        if organization:
            subject.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now + starts_in, now + ends_in - _DAY))
            .not_valid_after(now + ends_in)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(both if usage is None else tuple(usage)), critical=False)
        )
        names = [*map(x509.UniformResourceIdentifier, uris), *map(_host_name, hosts)]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return _issued(builder.sign(self._key, hashes.SHA256()), key)

    def itself(self) -> Issued:
        """The authority's certificate and key, as if someone used them as a leaf."""
        return _issued(self._certificate, self._key)

    # Internal

    def _sign_itself(self) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + 10 * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, hashes.SHA256())
        )


def _host_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _issued(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> Issued:
    return Issued(
        certificate_pem=certificate.public_bytes(serialization.Encoding.PEM),
        key_pem=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )
