"""Certificates and keys for Python's own `ssl`, loaded from memory. What a certificate says is `certificate.py`'s.

The X.509 library could do it too, and costs a process 10 MB: the agent does without it until a certificate has to be
renewed.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import sys
from collections.abc import Iterator


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
        import tempfile  # brings a dozen modules, which a box does without

        descriptor, path = tempfile.mkstemp(prefix="longline-")  # mode 0600; on Windows in the user's own folder
        try:
            os.write(descriptor, pem)
            os.close(descriptor)
            yield path
        finally:
            os.unlink(path)  # noqa: PTH108
