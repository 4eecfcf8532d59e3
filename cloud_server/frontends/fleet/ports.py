"""Reads the ports that a port-forward names before its upgrade, so that the policy is asked about each."""

from __future__ import annotations

from cloud_server.frontends.fleet.credentials import offered_protocols
from tunnel.aio.http.http1 import Request
from tunnel.kubeapi.list_options import Query
from tunnel.kubeapi.status import ApiError

MAX_PORTS = 64
"""The most ports of one request; the policy is asked about each."""
_MAX_PORT = 65535


def ports_of(request: Request, query: Query) -> list[int]:
    """Returns the ports that a client can reach by a request; empty when the client names them later, whatever its
    query says.

    Only the old WebSocket protocols take them from the query. In SPDY, bare or inside a WebSocket, as kubectl speaks
    it, each stream names its own.

    Raises:
        ApiError: 400, one of them is no port.
    """
    if (request.upgrade or "").lower() != "websocket":
        return []
    if any(protocol.lower().startswith("spdy/") for protocol in offered_protocols(request.headers)):
        return []
    texts = [part for value in query.every("ports") for part in value.split(",")]
    if len(texts) > MAX_PORTS:
        raise ApiError(400, f"more than {MAX_PORTS} ports to forward")
    return [_port(text) for text in texts]


# Internal


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= _MAX_PORT):
        raise ApiError(400, f"{text[:40]!r} in ports is no port")
    return int(text)
