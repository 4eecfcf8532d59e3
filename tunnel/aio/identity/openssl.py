"""Certificates through Python's own `ssl`: loading them from memory, and reading what our own says of us.

The X.509 library says more, and costs a process 10 MB: the agent does without it until something is wrong or a
certificate has to be renewed.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tunnel.aio.identity.validity import Validity

_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of <openssl/x509_vfy.h>; Python has no name for it."""
_ROUNDS = 8
"""Flights of a handshake between two buffers; TLS 1.3 has three."""


@dataclass(frozen=True, slots=True)
class OwnCertificate:
    """What a certificate of ours says."""

    uris: tuple[str, ...]
    validity: Validity


def load_chain(context: ssl.SSLContext, pem: bytes) -> None:
    """Give a context a certificate with its key. OpenSSL reads these from files only.

    Raises:
        ssl.SSLError: no certificate, no key, or they do not fit. A key with a password is none.
    """
    with _file_of(pem) as path:
        context.load_cert_chain(path, password=lambda: "")


def check_material(certificate: bytes, key: bytes, ca: bytes) -> None:
    """Returns when OpenSSL can use all three.

    Raises:
        ssl.SSLError, ValueError: it cannot.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    load_chain(context, certificate + b"\n" + key)
    context.load_verify_locations(cadata=ca.decode("ascii"))


def read_own(certificate: bytes, key: bytes) -> OwnCertificate:
    """Read a certificate of ours by showing it to ourselves: a TLS handshake between two buffers.

    Raises:
        ssl.SSLError, ValueError: it cannot be used as a TLS client's.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for context in (client, server):
        load_chain(context, certificate + b"\n" + key)
    # It vouches for itself, and may have run out: only its words are wanted.
    server.verify_mode = ssl.CERT_REQUIRED
    server.verify_flags = ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(_NO_CHECK_TIME)
    server.load_verify_locations(cadata=certificate.decode("ascii"))
    seen = _handshake(client, server)
    uris = tuple(value for kind, value in seen.get("subjectAltName", ()) if kind == "URI")
    return OwnCertificate(uris, _validity(seen))


def read_authorities(pem: bytes) -> list[Validity]:
    """How long each authority of a PEM file is good.

    Raises:
        ssl.SSLError, ValueError: there is no certificate.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem.decode("ascii"))
    return [_validity(found) for found in context.get_ca_certs()]


# Internal


@contextlib.contextmanager
def _file_of(pem: bytes) -> Iterator[str]:
    """A path for an API that takes only paths: memory where there is such a file, else one that only we may read."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, pem)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        descriptor, path = tempfile.mkstemp(prefix="longline-")  # mode 0600; on Windows in the user's own folder
        try:
            os.write(descriptor, pem)
            os.close(descriptor)
            yield path
        finally:
            os.unlink(path)  # noqa: PTH108


def _handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> dict[str, Any]:
    """The client's certificate as the server saw it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(_ROUNDS):
        for end in tuple(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            if end.server_side:
                return end.getpeercert() or {}
            ends.remove(end)
    raise ssl.SSLError("the handshake with ourselves did not end")


def _validity(seen: dict[str, Any]) -> Validity:
    return Validity(_time(seen["notBefore"]), _time(seen["notAfter"]))


def _time(text: str) -> datetime:
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text), UTC)
