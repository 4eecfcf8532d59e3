"""Makes a private key, of a box or a user, and its certificate request, as PEM and DER.

The X.509 library makes them, or, where that cannot be installed (32-bit ARM has no wheels of what it needs), the
openssl program. The library costs 10 MB of memory, and so is imported only when a certificate is asked for.
"""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from tunnel.aio.identity.certificate import signed_parts
from tunnel.core.wire.faults import KEYS_UNAVAILABLE, FaultError

SUBJECT = "longline"
"""The subject of requests. It says nothing: the server decides the name."""
ECDSA_WITH_SHA256 = bytes.fromhex("06082a8648ce3d040302")
"""The DER of the algorithm 1.2.840.10045.4.3.2 (RFC 5758, 3.2)."""
NEVER_DAYS = 36500
OPENSSL_S = 20.0
"""The seconds that the program may take, on a slow box."""
_MISSING = "neither the library cryptography nor the openssl program is here: apt-get install openssl, say"


class KeysUnavailable(FaultError):
    """This machine can make no key or request; the text says what to install, or what is wrong with the key."""

    default_fault = KEYS_UNAVAILABLE


def new_key() -> bytes:
    """Makes a key on curve P-256, and returns it as PEM (PKCS #8).

    Raises:
        KeysUnavailable: there is nothing to make it with.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        return _openssl(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"], b"")
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def request_for(key_pem: bytes) -> bytes:
    """Returns a certificate request that is signed by a key, as DER.

    Raises:
        KeysUnavailable: the key is none that `new_key` made, or there is nothing to sign with.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import NameOID
    except ImportError:
        words = ["req", "-new", "-sha256", "-key", "/dev/stdin", "-subj", f"/CN={SUBJECT}", "-outform", "DER"]
        return _openssl(words, key_pem)
    try:
        key = serialization.load_pem_private_key(key_pem, None)
    except (ValueError, TypeError) as error:
        raise KeysUnavailable(f"the key cannot be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeysUnavailable("the key is not one that this program makes")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SUBJECT)])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def self_signed(key_pem: bytes, name: str, hosts: Sequence[str]) -> bytes:
    """Returns a certificate for a server, signed by its own key, as PEM: whoever knows it trusts it, and nobody else.

    It does not end: those that trust it have it from the same disk that the key is on.

    Args:
        key_pem: a key that `new_key` made.
        name: the subject's common name.
        hosts: the names and addresses of the server.

    Raises:
        KeysUnavailable: the key is none that `new_key` made, or there is nothing to sign with.
    """
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
    except ImportError:
        listed = ",".join(f"{'IP' if _is_address(host) else 'DNS'}:{host}" for host in hosts)
        extensions = [f"subjectAltName={listed}", "extendedKeyUsage=serverAuth", "basicConstraints=critical,CA:TRUE"]
        words = ["req", "-x509", "-sha256", "-days", str(NEVER_DAYS), "-key", "/dev/stdin", "-subj", f"/CN={name}"]
        return _openssl([*words, *(word for one in extensions for word in ("-addext", one))], key_pem)
    key = serialization.load_pem_private_key(key_pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise KeysUnavailable("the key is not one that this program makes")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names: list[x509.GeneralName] = [
        x509.IPAddress(ip_address(host)) if _is_address(host) else x509.DNSName(host) for host in hosts
    ]
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime(1970, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime.now(UTC) + timedelta(days=NEVER_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM)


def is_signed_by(certificate_der: bytes, issuer_spki_der: bytes) -> bool:
    """Returns whether a certificate was signed by a key (SubjectPublicKeyInfo).

    Only signatures as our authorities make them count: ECDSA with SHA-256.

    Raises:
        CertificateUnreadable: the certificate cannot be read.
        KeysUnavailable: there is nothing to check it with.
    """
    signed, algorithm, signature = signed_parts(certificate_der)
    if algorithm != ECDSA_WITH_SHA256:
        return False
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError:
        return _openssl_verifies(signed, signature, issuer_spki_der)
    try:
        key = serialization.load_der_public_key(issuer_spki_der)
        if not isinstance(key, ec.EllipticCurvePublicKey):
            return False
        key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    except (ValueError, InvalidSignature):
        return False
    return True


# Internal


def _openssl_verifies(signed: bytes, signature: bytes, spki_der: bytes) -> bool:
    import tempfile  # brings a dozen modules, which a box at rest does without

    pem = ssl.DER_cert_to_PEM_cert(spki_der).replace("CERTIFICATE", "PUBLIC KEY")
    with tempfile.TemporaryDirectory(prefix="longline-") as folder:
        key, signature_file = Path(folder, "key"), Path(folder, "signature")
        key.write_text(pem)
        signature_file.write_bytes(signature)
        words = ["openssl", "dgst", "-sha256", "-verify", str(key), "-signature", str(signature_file)]
        try:
            done = subprocess.run(words, input=signed, capture_output=True, timeout=OPENSSL_S, check=False)
        except FileNotFoundError as error:
            raise KeysUnavailable(_MISSING) from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KeysUnavailable(f"the openssl program cannot be used: {error}") from error
        return done.returncode == 0


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _openssl(words: list[str], said: bytes) -> bytes:
    """Returns the output of the openssl program. The key goes through pipes: it is in no argument and no file of ours.

    Raises:
        KeysUnavailable: the program is not installed, or it failed.
    """
    try:
        done = subprocess.run(["openssl", *words], input=said, capture_output=True, timeout=OPENSSL_S, check=False)
    except FileNotFoundError as error:
        raise KeysUnavailable(_MISSING) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KeysUnavailable(f"the openssl program cannot be used: {error}") from error
    if done.returncode or not done.stdout:
        # Its own words, of which the first line says what; it repeats no key.
        first = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise KeysUnavailable(f"openssl {words[0]} failed: {first or done.returncode}")
    return done.stdout
