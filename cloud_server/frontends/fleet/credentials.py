"""Tells who is asking: by a client certificate, else by a token in a header or, as browsers send it, among WebSocket
protocols.

A Kubernetes API server looks in the same order: a certificate of a user wins over any token that comes along with it.
"""

from __future__ import annotations

import base64
import binascii

from cloud_server.frontends.fleet.causes import cause
from cloud_server.trust.authenticator import Authenticator
from cloud_server.trust.caller import Caller
from tunnel.aio.sockets.conn import TlsPeer
from tunnel.aio.sockets.http1 import Headers, Request
from tunnel.core.wire.faults import BROWSER_REFUSED, CREDENTIAL_MISSING
from tunnel.kubeapi.status import ApiError, about

TOKEN_PROTOCOL = "base64url.bearer.authorization.k8s.io."  # noqa: S105 - how browsers mark a token, not one
_IMPERSONATION = "impersonate-"
_IMPERSONATED = {"impersonate-user": "users", "impersonate-group": "groups", "impersonate-uid": "uids"}


def identify(authenticator: Authenticator, certificate: TlsPeer, request: Request) -> Caller:
    """Returns the user that a request comes from.

    Raises:
        ApiError: 401, when it comes from nobody that is known; 403, when the user may not ask in this way.
    """
    caller = authenticator.by_certificate(*certificate)
    if caller is not None:
        _check_origin(request)
    else:
        caller = authenticator.by_token(_bearer(request))
    if caller is None:
        raise ApiError(
            401,
            "Unauthorized: a client certificate of a user or a bearer token is needed",
            cause=cause(CREDENTIAL_MISSING),
        )
    _check_impersonation(caller.name, request.headers)
    return caller


def offered_protocols(headers: Headers) -> list[str]:
    """Returns the WebSocket protocols that a client offers, without its token; an empty list for a client that speaks
    SPDY.
    """
    return [name for name in _protocols(headers) if not name.startswith(TOKEN_PROTOCOL)]


# Internal


def _protocols(headers: Headers) -> list[str]:
    offered = [part.strip() for value in headers.getlist("sec-websocket-protocol") for part in value.split(",")]
    return [name for name in offered if name]


def _bearer(request: Request) -> str | None:
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


def _check_impersonation(user: str, headers: Headers) -> None:
    """Refuses to act as somebody else. If that wish were ignored, `kubectl --as=NOBODY` would get all rights of its
    user.

    Raises:
        ApiError: 403, the request asks for it.
    """
    for header, value in headers:
        if not header.startswith(_IMPERSONATION) or not value:
            continue
        kind = _IMPERSONATED.get(header, "userextras")
        shown = value[:256]
        raise ApiError(
            403,
            f'{kind} "{shown}" is forbidden: User "{user}" cannot impersonate resource "{kind}": the fleet API lets'
            " nobody act as somebody else (kubectl --as, or as: in a kubeconfig)",
            details=about("", kind, shown),
        )
