"""Decides what is signed: which names, for how long, and for whom. It believes nothing of what the asker says that the
authority itself has not signed before.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloud_server.trust.ca import CertificateAuthority, PublicKey
from cloud_server.trust.names import is_user_name
from cloud_server.trust.tokens import GRACE
from cloud_server.trust.user_administration import MAX_LIFE
from tunnel.aio.identity.spiffe import IdentityUnclear, only_uri, split_uri
from tunnel.core.path.rate import Rate, TokenBuckets
from tunnel.core.wire.faults import SIGNING_DENIED, FaultError
from tunnel.core.wire.globs import matches
from tunnel.core.wire.names import is_agent_name, is_agent_pattern
from tunnel.core.wire.spoken import spoken_s

_TOKEN_ID = re.compile(r"[0-9a-f]{32}")


class SigningDenied(FaultError):
    """The rules do not let this be signed; the text is for the operator."""

    default_fault = SIGNING_DENIED


AGENTS = Rate(10.0, 2000)
"""For all boxes together. 10,000 of them that come back from a long outage are through after 14 minutes."""
EACH_AGENT = Rate(1 / 30, 20)
"""For one name: twice the burst that the server itself allows to a box."""
USERS = Rate(1.0, 200)
JOINS = Rate(1.0, 1000)
SERVERS = Rate(1 / 21600, 4)
"""For certificates of the server itself: one is made in 550 days, or when `hosts` has changed."""


class Pace:
    """The rates at which one asker has certificates signed."""

    def __init__(self) -> None:
        """Starts with all rates unused."""
        self._kinds = {
            kind: TokenBuckets(*rate)
            for kind, rate in (("agent", AGENTS), ("user", USERS), ("join", JOINS), ("server", SERVERS))
        }
        self._agents = TokenBuckets(*EACH_AGENT)

    def keep(self, kind: str, name: str, now_s: float) -> None:
        """Counts one certificate. `now_s` is the time of a clock that only goes forward.

        Raises:
            SigningDenied: there were too many.
        """
        if kind == "agent" and (wait_s := self._agents.take(name, now_s)):
            raise SigningDenied(f"too many certificates for {name}: wait {spoken_s(wait_s)}")
        if wait_s := self._kinds[kind].take(kind, now_s):
            raise SigningDenied(f"too many certificates of the kind {kind}: wait {spoken_s(wait_s)}")

    def at_rest(self, now_s: float) -> bool:
        """Returns whether nothing is lost when this is forgotten: every rate may be used in full again."""
        return all(bucket.at_rest(now_s) for bucket in (*self._kinds.values(), self._agents))


@dataclass(frozen=True, slots=True)
class Shown:
    """The certificate that a box showed to the server."""

    role: str
    name: str
    """The name of the agent, or the id of the join token."""
    pattern: str
    """The names that a join token gives; empty for an agent."""
    key: PublicKey

    @classmethod
    def of(cls, der: bytes, authority: CertificateAuthority, trust_domain: str) -> Shown:
        """Returns what a certificate says that this authority, or the one beside it, has signed.

        Raises:
            SigningDenied: neither has, or it is not valid now.
        """
        try:
            certificate = x509.load_der_x509_certificate(der)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            uri = only_uri(names.get_values_for_type(x509.UniformResourceIdentifier))
            role, name = split_uri(uri, trust_domain)
            key = certificate.public_key()
        except (ValueError, x509.ExtensionNotFound, IdentityUnclear) as error:
            raise SigningDenied(f"the certificate that was shown is none of ours: {error}") from error
        if not isinstance(key, ec.EllipticCurvePublicKey) or not _is_signed_by_one_of(certificate, authority):
            raise SigningDenied("the certificate that was shown is not signed by this authority")
        if not certificate.not_valid_before_utc <= datetime.now(UTC) < certificate.not_valid_after_utc:
            raise SigningDenied(f"the certificate of {uri} that was shown is not valid now")
        units = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        return cls(role, name, str(units[0].value) if role == "join" and units else "", key)

    def check(self, name: str, key: PublicKey) -> None:
        """Makes sure that whoever showed it may have a certificate of this name and key.

        Raises:
            SigningDenied: they may not.
        """
        if self.role == "join":
            if not (self.pattern == name or ("*" in self.pattern and matches(self.pattern, name))):
                raise SigningDenied(f"the join token {self.name} is for {self.pattern or 'nobody'}, not for {name}")
        elif self.role not in ("agent", "recover") or self.name != name:
            raise SigningDenied(f"whoever shows a certificate of {self.role} {self.name} gets none of agent {name}")
        elif self.role == "recover" and self.key != key:
            raise SigningDenied(f"a recovery of {name} gives no certificate for another key")


def check_agent_name(name: str) -> None:
    """Makes sure that a text is the name of an agent.

    Raises:
        SigningDenied: it is not.
    """
    if not is_agent_name(name):
        raise SigningDenied(f"{name[:80]!r} is not the name of an agent")


def check_user(name: str, life: timedelta, *, limited: bool) -> None:
    """Makes sure that a user of this name may have a certificate for so long. `limited` says that MAX_LIFE holds.

    Raises:
        SigningDenied: they may not.
    """
    if not is_user_name(name):
        raise SigningDenied(f"{name[:80]!r} is not the name of a user")
    _check_life(life, MAX_LIFE, limited=limited)


def check_join(token_id: str, agent: str, life: timedelta, *, limited: bool) -> None:
    """Makes sure that this may be the credential of a join token, and for so long. `limited` says that MAX_LIFE holds.

    Raises:
        SigningDenied: it may not.
    """
    if not _TOKEN_ID.fullmatch(token_id):
        raise SigningDenied(f"{token_id[:80]!r} is not the id of a join token")
    if not is_agent_name(agent) and not is_agent_pattern(agent):
        raise SigningDenied(f"{agent[:80]!r} is neither the name of an agent nor a pattern of names")
    _check_life(life, MAX_LIFE + GRACE, limited=limited)


# Internal


def _check_life(life: timedelta, longest: timedelta, *, limited: bool) -> None:
    if life <= timedelta(0):
        raise SigningDenied("a certificate cannot have ended before it was made")
    if limited and life > longest:
        raise SigningDenied(f"a server may ask for {longest.days} days at most: for longer, root asks by a command")


def _is_signed_by_one_of(certificate: x509.Certificate, authority: CertificateAuthority) -> bool:
    for one in (authority.certificate, *authority.beside):
        try:
            certificate.verify_directly_issued_by(one)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False
