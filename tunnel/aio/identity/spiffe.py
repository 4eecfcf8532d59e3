"""Our names in certificates: `spiffe://<trust domain>/<role>/<name>`."""

from __future__ import annotations

from collections.abc import Sequence

from tunnel.core.wire.faults import PEER_ROLE_REFUSED, FaultError

ROLES = frozenset({"agent", "user", "join", "server"})
_SCHEME = "spiffe://"


class IdentityUnclear(FaultError):
    """The certificate does not name exactly one identity of ours; the text says what is wrong with it."""

    default_fault = PEER_ROLE_REFUSED


def only_uri(uris: Sequence[str]) -> str:
    """Returns the one URI name of a certificate.

    Raises:
        IdentityUnclear: it has none, or several.
    """
    if len(uris) != 1:
        raise IdentityUnclear(f"the certificate has {len(uris)} URI names; exactly one is expected")
    return uris[0]


def split_uri(uri: str, trust_domain: str | None) -> tuple[str, str]:
    """Returns the role and the name in a URI of ours; `trust_domain` None takes any, for a certificate of our own.

    Raises:
        IdentityUnclear: it is not a name of ours.
    """
    domain, _, path = uri.removeprefix(_SCHEME).partition("/")
    if not uri.startswith(_SCHEME) or not domain:
        raise IdentityUnclear(f"the certificate's URI name {uri!r} is not a {_SCHEME} name")
    if trust_domain is not None and domain != trust_domain:
        raise IdentityUnclear(f"the certificate is of trust domain {domain!r}; this server serves {trust_domain!r}")
    role, _, name = path.partition("/")
    if role not in ROLES or "/" in name or bool(name) == (role == "server"):
        raise IdentityUnclear(f"the certificate's URI name {uri!r} has no role that is known here")
    return role, name
