"""What is wrong with a certificate, key or CA that OpenSSL would not take, in words that name the file."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import serialization


def name_fault(material: tuple[bytes, bytes, bytes], names: tuple[str, str, str]) -> str | None:
    """The fault, or None when each looks good by itself.

    Args:
        material: certificate chain, key and CA; PEM.
        names: what each is called in the text.
    """
    (certificate, key, ca), (certificate_name, key_name, ca_name) = material, names
    for pem, name in ((certificate, certificate_name), (ca, ca_name)):
        try:
            x509.load_pem_x509_certificates(pem)
        except ValueError:
            return f"{name} holds no PEM certificate"
    try:
        private_key = serialization.load_pem_private_key(key, password=None)
    except (ValueError, TypeError):
        return f"{key_name} holds no PEM private key without password"
    if private_key.public_key() != x509.load_pem_x509_certificates(certificate)[0].public_key():
        return f"{key_name} does not belong to {certificate_name}"
    return None
