"""The TLS contexts of front ends: what a listener shows, and what it asks of its clients."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

from tunnel.aio.identity.openssl import load_chain
from tunnel.aio.identity.tls_material import CredentialsUnusable, LoadedTls

HTTP1 = "http/1.1"


def server_context(loaded: LoadedTls, alpn_protocols: Sequence[str] = (HTTP1,)) -> ssl.SSLContext:
    """Returns a context that asks for a client certificate of the authorities, and lets clients without one in.

    Blocking.

    `alpn_protocols` are offered, best first; a client that names none speaks HTTP/1.1.

    New material for a running server is a new context. Blocking.

    Raises:
        CredentialsUnusable: the material cannot be used.
    """
    context = _bare_context(alpn_protocols)
    context.verify_mode = ssl.CERT_OPTIONAL
    try:
        context.load_verify_locations(cadata=loaded.ca.decode("ascii"))
        load_chain(context, loaded.certificate + b"\n" + loaded.key)
    except (ssl.SSLError, UnicodeDecodeError) as fault:
        raise CredentialsUnusable(f"the TLS material cannot be used: {fault}") from fault
    return context


def anonymous_context(chain_and_key: Path) -> ssl.SSLContext:
    """Returns a context that asks for no client certificate, with its own chain and key in one file. Blocking.

    A client that is asked for a certificate may send one that it has for somebody else: Go's do, through a proxy.

    Raises:
        CredentialsUnusable: the file cannot be used.
    """
    context = _bare_context((HTTP1,))
    try:
        context.load_cert_chain(chain_and_key)
    except (ssl.SSLError, OSError) as fault:
        raise CredentialsUnusable(f"{chain_and_key} cannot be used: {fault}") from fault
    return context


# Internal


def _bare_context(alpn_protocols: Sequence[str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # A resumed session would carry a certificate over its end or its revocation.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    context.set_alpn_protocols(list(alpn_protocols))
    return context
