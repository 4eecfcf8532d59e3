"""Tells who is asking: by a client certificate, else by a token in a header or, as browsers send it, among WebSocket
protocols.

A Kubernetes API server looks in the same order: a certificate of a user wins over any token that comes along with it.
"""

from __future__ import annotations

import base64
import binascii

from cloud_server.frontends.fleet.causes import cause
from cloud_server.trust.authenticator import CERTIFICATE, Authenticator, LoginRefused
from cloud_server.trust.caller import Caller
from tunnel.aio.http.http1 import Headers, Request
from tunnel.aio.sockets.conn import TlsPeer
from tunnel.core.wire.faults import BROWSER_REFUSED
from tunnel.kubeapi.status import ApiError

TOKEN_PROTOCOL = "base64url.bearer.authorization.k8s.io."  # noqa: S105 - how browsers mark a token, not one


def identify(authenticator: Authenticator, certificate: TlsPeer, request: Request, peer: str) -> Caller:
    """Whose request it is; `peer` is the address and port that it came from.

    Raises:
        LoginRefused: it is nobody's.
        ApiError: 403, the user may not ask in this way.
    """
    caller = authenticator.by_either(certificate, bearer(request), peer)
    if caller.principal.proof.startswith(CERTIFICATE):
        _check_origin(request)
    return caller


def unauthorized(refused: LoginRefused) -> ApiError:
    """Returns the 401 for whoever has shown nothing that is worth anything here."""
    return ApiError(401, f"Unauthorized: {refused.text}", cause=cause(refused.fault))


def bearer(request: Request) -> str | None:
    """Returns the token that a request shows; None when it shows none."""
    scheme, _, token = (request.headers.get("authorization") or "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    if (request.upgrade or "").lower() != "websocket":
        return None
    found = [name for name in _protocols(request.headers) if name.startswith(TOKEN_PROTOCOL)]
    if len(found) != 1 or not offered_protocols(request.headers):
        return None  # as a Kubernetes API server: one token, and one more protocol that can be answered with
    encoded = found[0].removeprefix(TOKEN_PROTOCOL)
    try:
        return base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True).decode()
    except (ValueError, binascii.Error):
        return None


def offered_protocols(headers: Headers) -> list[str]:
    """Returns the WebSocket protocols that a client offers, without its token; an empty list for a client that speaks
    SPDY.
    """
    return [name for name in _protocols(headers) if not name.startswith(TOKEN_PROTOCOL)]


# Internal


def _protocols(headers: Headers) -> list[str]:
    offered = [part.strip() for value in headers.getlist("sec-websocket-protocol") for part in value.split(",")]
    return [name for name in offered if name]


def _check_origin(request: Request) -> None:
    """Refuses an upgrade for a page of another site, in a browser that has the certificate: the browser shows the
    certificate for any page that asks.

    A token is another matter, since only who knows it can send it.

    Raises:
        ApiError: 403, the page is another site's.
    """
    origin = request.headers.get("origin")
    if request.upgrade is None or origin is None:
        return
    if origin.partition("://")[2].lower() != (request.headers.get("host") or "").lower():
        raise ApiError(
            403,
            f"a page of {origin[:256]} may not use your client certificate: it needs a bearer token",
            cause=cause(BROWSER_REFUSED),
        )
