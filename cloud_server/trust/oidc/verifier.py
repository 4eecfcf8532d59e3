"""Verifies ID tokens and tells whose they are. PyJWT does the cryptography and the registered claims."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import jwt
from jwt.exceptions import ExpiredSignatureError, InvalidSignatureError, PyJWTError

from cloud_server.trust.authenticator import ISSUED_BY, Identified, LoginRefused, token_digest
from cloud_server.trust.oidc.keys import MAX_KID_CHARS, KeySet
from cloud_server.trust.oidc.settings import OidcSettings
from tunnel.aio.identity.validity import date
from tunnel.aio.process.moments import moment
from tunnel.core.path.rate import TokenBuckets
from tunnel.core.wire.faults import CREDENTIAL_EXPIRED, ID_TOKEN_REFUSED, ISSUER_UNREACHABLE
from tunnel.core.wire.spoken import spoken_s

MAX_TOKEN_BYTES = 16 * 1024
"""The most bytes of an ID token: what the head of a request can hold."""
MAX_VERIFIED = 4096
"""The most tokens that are remembered as verified, some 1 kB each. Beyond that the oldest is verified again, in 0.3
ms."""
FORGED_PER_S, FORGED_AT_ONCE = 2.0, 50
"""Wrong signatures that are looked at for each peer's address: anybody can make such tokens, and each costs the event
loop 0.3 ms. Whoever comes through the same address may have to wait for their first request with a new token.
"""
MAX_GROUPS = 512
"""The most groups of one user. A token with more is refused, not cut: a group that is cut might be one that a rule
forbids something."""
MAX_NAME_CHARS = 128
"""The most characters of a user's or group's name, with its prefix."""
PROOF_CHARS = 24
"""The characters of a token's `jti` in its proof: enough to find it in the issuer's log."""
SYSTEM = "system:"
"""The beginning of names of our own making. No issuer gives such names."""
_REFUSED_HEADERS = ("jku", "x5u", "jwk")
"""The headers in which a token would bring its own key (RFC 7515 4.1.2 to 4.1.5)."""
_LOGIN_AGAIN = "log in again (longline login)"


@dataclass(frozen=True, slots=True)
class Head:
    """What a token says of itself before it is verified."""

    algorithm: str
    kid: str | None


class Verifier:
    """The verifier of one issuer's tokens.

    It is called in the event loop, and takes some 0.3 ms for a token that was not seen before, 3 us for others.
    """

    def __init__(self, settings: OidcSettings) -> None:
        self._settings = settings
        self._keys: KeySet | None = None
        self._verified: dict[str, Identified] = {}
        self._forged = TokenBuckets(FORGED_PER_S, FORGED_AT_ONCE)
        """Of each peer's address."""
        self._host = urlsplit(settings.issuer).hostname or ""

    @property
    def keys(self) -> KeySet | None:
        """Returns the issuer's keys; None when they are not known."""
        return self._keys

    def use(self, keys: KeySet | None) -> None:
        """Uses other keys from now on; with None no token is accepted.

        Tokens that were verified before are verified again when the keys are different.
        """
        if keys is None or self._keys is None or keys.content != self._keys.content:
            self._verified.clear()
        self._keys = keys

    def verify(self, text: str, address: str) -> Identified:
        """Whose ID token it is.

        Args:
            text: the token.
            address: that of the peer who shows it. Too many signatures that are wrong, and none of a token that was not
                seen before is looked at for this peer for a while.

        Raises:
            LoginRefused: it is worth nothing here.
        """
        digest = token_digest(text)
        shown = self._verified.get(digest)
        if shown is None:
            shown = self._shown(self._claims(text, address), digest)
            if len(self._verified) >= MAX_VERIFIED:
                del self._verified[next(iter(self._verified))]
            self._verified[digest] = shown
        if datetime.now(UTC) >= shown.until:
            del self._verified[digest]
            raise _expired(shown.until)
        return shown

    def head(self, text: str) -> Head:
        """Returns what a token says of itself, unverified.

        Raises:
            LoginRefused: the token has not the form of one that is accepted.
        """
        if len(text) > MAX_TOKEN_BYTES or not text.isascii():
            raise _refused(f"it is longer than {MAX_TOKEN_BYTES} bytes, or no ASCII")
        try:
            header = jwt.get_unverified_header(text)
        except PyJWTError as error:
            raise _refused(f"it cannot be read: {error}") from error
        algorithm, kid = header.get("alg"), header.get("kid")
        if algorithm not in self._settings.algorithms:
            allowed = ", ".join(self._settings.algorithms)
            raise _refused(f"it is signed with {str(algorithm)[:40]!r}, and only {allowed} are taken")
        if any(name in header for name in _REFUSED_HEADERS):
            raise _refused("it brings a key of its own along")
        if str(header.get("typ", "JWT")).upper() != "JWT":
            raise _refused(f"it is a token of the type {str(header['typ'])[:40]!r}, not an ID token")
        if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID_CHARS):
            raise _refused("its kid is no name of a key")
        return Head(str(algorithm), kid)

    # Internal

    def _claims(self, text: str, address: str) -> Mapping[str, Any]:
        head = self.head(text)
        if wait_s := self._forged.wait_s(address, time.monotonic()):
            raise _refused(f"too many with wrong signatures came from {address}: wait {spoken_s(wait_s)}")
        if self._keys is None:
            # To a stranger: why that is so tells of our network and of the issuer's, and stands in the log.
            raise LoginRefused("the issuer's keys are not known here; see the server's log", ISSUER_UNREACHABLE)
        keys = self._keys.matching(head.kid, head.algorithm)
        if not keys:
            raise _refused(f"{self._settings.issuer} has no key {str(head.kid)[:40]!r} for {head.algorithm}")
        why: PyJWTError | ValueError | TypeError | None = None
        for key in keys:
            try:
                return self._decoded(text, key, head.algorithm)
            except (PyJWTError, ValueError, TypeError) as error:
                if why is None or not isinstance(error, InvalidSignatureError):
                    why = error  # what is wrong beside the signature says more than that another key is not its own
        if isinstance(why, InvalidSignatureError):
            for _ in keys:  # each was tried
                self._forged.take(address, time.monotonic())
        if isinstance(why, ExpiredSignatureError):
            raise _expired(None) from why
        raise _refused(str(why) or type(why).__name__) from why

    def _decoded(self, text: str, key: jwt.PyJWK, algorithm: str) -> Mapping[str, Any]:
        settings = self._settings
        claims: dict[str, Any] = jwt.decode(
            text,
            key,
            algorithms=[algorithm],
            audience=settings.audiences,
            issuer=settings.issuer,
            leeway=settings.leeway_s,
            options={"require": ["iss", "sub", "aud", "exp", "iat"], "enforce_minimum_key_length": True},
        )
        made_for = claims.get("azp", settings.client_id)
        if isinstance(claims["aud"], list) and len(claims["aud"]) > 1 and made_for not in settings.audiences:
            # OpenID Connect Core 3.1.3.7, points 4 and 5
            raise _refused(f"it was made for {str(made_for)[:80]!r}")
        for name, value in settings.required_claims.items():
            found = claims.get(name)
            if found != value and not (isinstance(found, list) and value in found):
                raise _refused(f"its claim {name} is not {value!r}")
        return claims

    def _shown(self, claims: Mapping[str, Any], digest: str) -> Identified:
        until = _moment(claims["exp"])
        if datetime.now(UTC) >= until:  # the leeway is for clocks that are ahead, and prolongs nothing
            raise _expired(until)
        token_id = claims.get("jti")
        known_by = token_id if isinstance(token_id, str) and token_id.isascii() and token_id.isprintable() else digest
        return Identified(
            name=self._name(claims),
            groups=self._groups(claims),
            proof=f"{ISSUED_BY}{self._host}:{known_by[:PROOF_CHARS]}",
            since=_moment(claims["iat"]),
            until=until,
        )

    def _name(self, claims: Mapping[str, Any]) -> str:
        claim = self._settings.username_claim
        value = claims.get(claim)
        if not isinstance(value, str) or not value:
            raise _refused(f"it has no claim {claim!r}, which users are named by ([oidc] username_claim)")
        if claim == "email" and not self._settings.unverified_email and claims.get("email_verified") is not True:
            why = "its issuer does not say that it has verified the e-mail address (email_verified)"
            raise _refused(f"{why}; [oidc] unverified_email takes it all the same")
        name = self._settings.username_prefix + value
        if not _is_name(name) or " " in name or name.startswith(SYSTEM):
            raise _refused(f"{name[:40]!r} cannot name a user: {MAX_NAME_CHARS} characters, no blanks, no {SYSTEM}")
        return name

    def _groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the groups of a token that a policy could name.

        Those that begin with `system:` are left out, as these are ours.
        """
        found = claims.get(self._settings.groups_claim)
        values = [found] if isinstance(found, str) else found if isinstance(found, list) else []
        if len(values) > MAX_GROUPS:
            text = f"it has {len(values)} groups, and {MAX_GROUPS} are taken: have the issuer send fewer"
            raise _refused(text)
        named = (self._settings.groups_prefix + value for value in values if isinstance(value, str) and value)
        return tuple(dict.fromkeys(name for name in named if _is_name(name) and not name.startswith(SYSTEM)))


def _moment(value: Any) -> datetime:
    try:
        return moment(int(value))
    except ValueError as error:
        raise _refused("it has a time that is none") from error


def _is_name(text: str) -> bool:
    return 0 < len(text) <= MAX_NAME_CHARS and text.isprintable()


def _refused(why: str) -> LoginRefused:
    return LoginRefused(f"the ID token is not taken: {why}"[:400], ID_TOKEN_REFUSED)


def _expired(until: datetime | None) -> LoginRefused:
    at = f" at {date(until)}" if until is not None else ""
    return LoginRefused(f"the ID token expired{at}: {_LOGIN_AGAIN}", CREDENTIAL_EXPIRED)
