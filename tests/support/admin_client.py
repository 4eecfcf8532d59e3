"""Clients of the admin API: on the unix socket of a daemon, or over TLS."""

from __future__ import annotations

import http.client
import ssl

from tunnel.aio.operate.admin_client import AdminClient

TIMEOUT_S = 20.0


def tls_client(port: int, tls: ssl.SSLContext, token: str = "") -> AdminClient:
    """A client for a fleet API on loopback; `token`: empty for none."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return AdminClient(lambda: http.client.HTTPSConnection("127.0.0.1", port, timeout=TIMEOUT_S, context=tls), headers)
