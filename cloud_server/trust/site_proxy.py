"""Keeps the certificate of the CONNECT front end that the kubeconfigs of sites name: signed by itself, and trusted as
itself.

It stands apart from the server's certificate: it has no name of the machine itself, such as 127.0.0.1, which API
servers at sites have too; and it outlives renewals, since every kubeconfig that was handed out holds a copy.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloud_server.trust.ca import CLOCK_SKEW, general_name, key_pem
from cloud_server.trust.hosts import HostsMissing, read_hosts
from cloud_server.trust.state_files import SITE_PROXY_FILE
from tunnel.aio.identity.tls_material import CredentialsUnusable
from tunnel.aio.process.files import SECRET, write_once
from tunnel.aio.sockets.address import is_loopback
from tunnel.aio.sockets.tls_context import anonymous_context

FILE = SITE_PROXY_FILE
LIFE = timedelta(days=3650)
"""How long it is valid. Nobody else relies on it, and to take it away is to delete the file."""


def site_proxy_certificate(state: Path, folder: Path | None = None) -> bytes:
    """Returns the certificate, with its key, as PEM; makes it at the first use. Blocks.

    `folder` is that of the authority, which has the names; None means the state folder.

    Raises:
        HostsMissing: it is not known what names it is to have.
        OSError: it cannot be read or made.
    """
    path = state / FILE
    if not path.exists():
        write_once(path, _make(read_hosts(folder or state)), SECRET)
    return path.read_bytes()


def site_proxy_context(state: Path, folder: Path | None = None) -> ssl.SSLContext:
    """Returns the TLS context of the listener that shows this certificate. `folder` is as above. Blocks.

    Raises:
        CredentialsUnusable: it cannot be made or used.
    """
    try:
        site_proxy_certificate(state, folder)
    except (HostsMissing, OSError) as fault:
        raise CredentialsUnusable(f"{FILE} cannot be made: {fault}") from fault
    return anonymous_context(state / FILE)


def _make(hosts: list[str]) -> bytes:
    names = [general_name(host) for host in hosts if not is_loopback(host)] or [general_name(host) for host in hosts]
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "longline site proxy")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM) + key_pem(key)
