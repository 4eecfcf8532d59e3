"""Says what is wrong with a certificate, key or CA that OpenSSL would not take, in words that name the file."""

from __future__ import annotations

import ssl

from tunnel.aio.identity.certificate import CertificateUnreadable, read_pem
from tunnel.aio.identity.openssl import load_chain


def name_fault(material: tuple[bytes, bytes, bytes], names: tuple[str, str, str]) -> str | None:
    """Returns what is wrong, in one line; None when each looks good by itself.

    Args:
        material: certificate chain, key and CA; PEM.
        names: what each is called in the text.
    """
    (certificate, key, ca), (certificate_name, key_name, ca_name) = material, names
    for pem, name in ((certificate, certificate_name), (ca, ca_name)):
        try:
            read_pem(pem)
        except CertificateUnreadable:
            return f"{name} holds no PEM certificate"
    try:
        load_chain(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), certificate + b"\n" + key)
    except ssl.SSLError as fault:
        if fault.reason == "KEY_VALUES_MISMATCH" or fault.reason == "KEY_TYPE_MISMATCH":
            return f"{key_name} does not belong to {certificate_name}"
        return f"{key_name} holds no PEM private key without password"
    return None
