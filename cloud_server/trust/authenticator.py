"""Says who somebody is: from a certificate, a token, a unix socket, or the port that was asked. It is the one place for
it.

Every method is called in the event loop for each connection or request, and takes microseconds.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from cloud_server.trust.caller import UNLIMITED, Caller, Scope
from tunnel.aio.identity.spiffe import IdentityUnclear, split_uri
from tunnel.core.wire.principal import Principal, PrincipalKind

KUBE_APISERVER = "kube-apiserver"
"""The name of whoever speaks konnectivity's protocol on the unix socket: kube-apiserver is its only user."""
PROOF_DIGITS = 12
"""How many digits of a token's hash its proof and lists have: enough to tell tokens apart, too few to be of use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserToken:
    """The record that is kept of a user's bearer token."""

    user: str
    sha256: str
    """The SHA-256 of the token's text, in hexadecimal."""
    created: datetime
    expires: datetime | None = None
    """When it ends; None when it does not end."""
    groups: tuple[str, ...] = ()
    scope: Scope = UNLIMITED


class Credentials(Protocol):
    """The tokens that were handed out."""

    def user_token(self, sha256: str) -> UserToken | None:
        """Returns the token with this hash; None when there is none, or none any more."""
        ...


class Authenticator:
    """The maker of every Caller."""

    def __init__(self, trust_domain: str, credentials: Credentials) -> None:
        """Looks up tokens in `credentials`. A certificate that names another `trust_domain` is nobody's here."""
        self._trust_domain = trust_domain
        self._credentials = credentials

    def by_certificate(self, uri: str | None, serial: str, until: datetime | None = None) -> Caller | None:
        """Returns the user of a client certificate that TLS has verified; None when it is not a user's.

        Args:
            uri: the one spiffe:// name in it; None without a certificate.
            serial: its serial number, in hexadecimal of either case; empty when it is not known.
            until: when it ends; None when that is not known.
        """
        if uri is None:
            return None
        try:
            role, name = split_uri(uri, self._trust_domain)
        except IdentityUnclear:
            return None
        if role != "user":
            return None
        return Caller(Principal(kind=PrincipalKind.USER, name=name, proof=_certificate(serial)), until)

    def by_token(self, text: str | None) -> Caller | None:
        """Returns the user that a bearer token or proxy password stands for; None when it is nobody's, or expired."""
        if not text:
            return None
        # Looked up by hash: how long that takes says nothing of the token.
        token = self._credentials.user_token(token_digest(text))
        if token is None or (token.expires is not None and datetime.now(UTC) >= token.expires):
            return None
        proof = token_proof(token.sha256)
        principal = Principal(kind=PrincipalKind.USER, name=token.user, groups=token.groups, proof=proof)
        return Caller(principal, token.expires, token.scope)

    def by_unix_peer(self, uid: int, pid: int, *, konnectivity: bool) -> Caller:
        """Returns the caller that opened a unix socket of ours; the socket's mode decides who can.

        Args:
            uid: as the kernel tells it (SO_PEERCRED).
            pid: likewise; 0 for a process that cannot be seen from here, as in another container.
            konnectivity: whether it speaks konnectivity's protocol, not CONNECT.
        """
        proof = f"uid:{uid} pid:{pid}" if pid else f"uid:{uid}"
        if konnectivity:
            return Caller(Principal(kind=PrincipalKind.KUBE_APISERVER, name=KUBE_APISERVER, proof=proof))
        return Caller(Principal(kind=PrincipalKind.LOCAL_PROCESS, name=f"uid:{uid}", proof=proof))

    def static_forward(self, listen: str) -> Caller:
        """Returns the caller that connects to a port that the configuration forwards: nobody asks who that is."""
        return Caller(Principal(kind=PrincipalKind.STATIC_FORWARD, name=listen))

    def server(self, name: str) -> Caller:
        """Returns this server itself as a caller, on nobody's behalf; `name` says which part of it."""
        return Caller(Principal(kind=PrincipalKind.SERVER, name=name))

    def agent(self, name: str, serial: str) -> Caller:
        """Returns a box that opens streams of its own on a session; its certificate was checked when the session began.

        `serial` is that of its certificate; empty when it is not known.
        """
        return Caller(Principal(kind=PrincipalKind.AGENT, name=name, proof=_certificate(serial)))


def token_digest(text: str) -> str:
    """Returns the SHA-256 under which a token is kept, in hexadecimal."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def token_proof(sha256: str) -> str:
    """Returns the proof in the Caller of a token with this hash."""
    return f"token:{sha256[:PROOF_DIGITS]}"


def _certificate(serial: str) -> str:
    return f"certificate:{serial.lower()}" if serial else ""
