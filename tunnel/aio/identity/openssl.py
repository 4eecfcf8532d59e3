"""Loads certificates and keys from memory for Python's own `ssl`.

What a certificate says is read by `certificate.py`.

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
    """Gives a context a certificate with its key from memory, though OpenSSL reads these from files only.

    Raises:
        ssl.SSLError: there is no certificate or no key, or they do not fit. A key with a password counts as none.
    """
    with _file_of(pem) as path:
        context.load_cert_chain(path, password=lambda: "")


def check_material(certificate: bytes, key: bytes, ca: bytes) -> None:
    """Checks that OpenSSL can use all three, which are PEM.

    Raises:
        ssl.SSLError, ValueError: it cannot.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    load_chain(context, certificate + b"\n" + key)
    context.load_verify_locations(cadata=ca.decode("ascii"))


# Internal


@contextlib.contextmanager
def _file_of(pem: bytes) -> Iterator[str]:
    """Yields a path for an API that takes only paths: memory where there is such a file, else a file for us alone."""
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
