"""Declares the kinds of records that a server keeps, and how each is written: as JSON, which a person can read too."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from cloud_server.trust.caller import UNLIMITED, Scope
from cloud_server.trust.fields import Fields, as_bytes
from cloud_server.trust.store import Kind
from tunnel.aio.identity.validity import Validity

MAX_REASON_CHARS = 200
"""The most characters that are kept of why a link was lost: a peer may have put it."""
BEARER, LOGIN = "bearer", "login"
"""What a user's token is for: to be shown at front ends, or to get certificates with and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRecord:
    """The record of an agent that joined: it says whose the agent's name is."""

    name: str
    joined: datetime
    spki_sha256: str
    """The SHA-256 of the public key that the name belongs to, in hexadecimal."""
    revoked: datetime | None = None
    reason: str = ""
    """Why it was revoked, as the operator said; empty when they did not say."""
    validity: Validity | None = None
    """The period in which the certificate that it was given last is valid; None when that is not known, as for a
    certificate that is not of our making.
    """
    labels: Mapping[str, str] = field(default_factory=dict)
    """The labels that the operator gave the agent. What a box says of itself is not among them."""
    authority: str = ""
    """The authority that signed that certificate, see `authority_id`; empty when that is not known."""
    trusts: tuple[str, ...] = ()
    """The authorities that the agent was told to trust with that certificate."""
    taken: bool = False
    """Whether the agent has come with that certificate. Until then, the answer with it may have been lost."""
    next_spki_sha256: str = ""
    """The SHA-256 of the key that will take the place of the other one when it is seen first; empty when there is
    none."""
    rotated: datetime | None = None
    """When its key was replaced last; None when it never was since it joined."""
    generation: int = 0
    """The number of certificates that it was given since it joined, by requests that were counted."""
    nonce: str = ""
    """The nonce of the request that was counted last, in hexadecimal; empty once its answer was taken."""
    recoveries: int = 0
    """How often it came back after the end of its certificate."""
    recovered: datetime | None = None
    copied: datetime | None = None
    """When a copy of its disk was turned away last; None when none ever was since it joined."""
    ahead: datetime | None = None
    """When it asked last with a generation that is not reached here; None: never since it joined."""
    lead: int = 0
    """By how much it was ahead then."""
    node: str = ""
    """The node of a Kubernetes cluster that joined as itself; empty for a box that joined by a token alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """The record of when and how an agent was seen last, to the minute: for lists, and worth nothing as a proof."""

    last_seen: datetime
    address: str
    """The `ip:port` that it came from."""
    version: str
    """The version of its software."""
    reason: str = ""
    """Why its link was lost last; empty when it never was."""
    replaced: datetime | None = None
    """When a second process with the same identity was turned away last; None when that never was since it joined."""
    replaced_from: str = ""
    """The `ip:port` that the second process came from; empty when there was none."""
    came: datetime | None = None
    """When its link began last; None when that was not noted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTokenRecord:
    """The record of a token to join with."""

    agent: str
    """The name that it gives; with a `*` in it, the pattern of the names that boxes choose."""
    expires: datetime
    used: datetime | None = None
    """When a box joined with it last; None when none did."""
    count: int = 1
    """The number of boxes that may join with it."""
    names: tuple[str, ...] = ()
    """The names of the boxes that joined with it."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """The labels that each of them gets."""
    created: datetime | None = None
    created_by: str = ""
    kubernetes: bool = False
    """Whether it is worth nothing without a node's token of Kubernetes. It gives that node's name, to any number of
    nodes."""

    @property
    def left(self) -> int:
        """Returns how many boxes may still join with it."""
        return sys.maxsize if self.kubernetes else max(0, self.count - len(self.names))


@dataclass(frozen=True, slots=True, kw_only=True)
class UserRecord:
    """The record of a person or a program that may have credentials."""

    name: str
    groups: tuple[str, ...] = ()
    created: datetime
    created_by: str = ""
    valid_from: datetime
    """When the credentials begin to count: what was made before is worth nothing, because the user was revoked
    since."""
    revoked: datetime | None = None
    """When the user was revoked, which blocks the name whatever is shown; None when they were not."""
    reason: str = ""
    """Why the user was revoked, as the operator said; empty when they did not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserToken:
    """The record of a user's token."""

    user: str
    sha256: str
    """The SHA-256 of the token's text, in hexadecimal."""
    created: datetime
    expires: datetime | None = None
    """When it ends; None when it never ends. A token that is made now always ends."""
    scope: Scope = UNLIMITED
    created_by: str = ""
    purpose: str = BEARER
    """What it is for: BEARER or LOGIN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCertificate:
    """The record of a user's certificate."""

    serial: str
    """Its serial number, in lower-case hexadecimal, without leading zeros."""
    user: str
    created: datetime
    expires: datetime
    created_by: str = ""
    scope: Scope = UNLIMITED
    login: str = ""
    """The SHA-256 of the login that it was got with, and with whose revocation it ends, too; empty for one that an
    operator made."""
    authority: str = ""
    """The authority that signed it, see `authority_id`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastUse:
    """The record of when a credential was shown last, to the hour."""

    hour: datetime


def _agent_bytes(record: AgentRecord) -> bytes:
    validity = record.validity
    return as_bytes(
        name=record.name,
        joined=record.joined,
        spki_sha256=record.spki_sha256,
        revoked=record.revoked,
        reason=record.reason or None,
        certificate_from=validity.not_before if validity is not None else None,
        certificate_until=validity.not_after if validity is not None else None,
        labels=dict(record.labels) or None,
        authority=record.authority or None,
        trusts=list(record.trusts) or None,
        taken=record.taken or None,
        next_spki_sha256=record.next_spki_sha256 or None,
        rotated=record.rotated,
        generation=record.generation or None,
        nonce=record.nonce or None,
        recoveries=record.recoveries or None,
        recovered=record.recovered,
        copied=record.copied,
        ahead=record.ahead,
        lead=record.lead or None,
        node=record.node or None,
    )


def _agent(body: bytes) -> AgentRecord:
    values = Fields(body)
    begin, end = values.moment("certificate_from"), values.moment("certificate_until")
    return AgentRecord(
        name=values.text("name"),
        joined=values.needed("joined"),
        spki_sha256=values.text("spki_sha256"),
        revoked=values.moment("revoked"),
        reason=values.text("reason", ""),
        validity=Validity(begin, end) if begin is not None and end is not None else None,
        labels=values.labels("labels"),
        authority=values.text("authority", ""),
        trusts=values.texts("trusts") or (),
        taken=values.flag("taken"),
        next_spki_sha256=values.text("next_spki_sha256", ""),
        rotated=values.moment("rotated"),
        generation=values.count("generation"),
        nonce=values.text("nonce", ""),
        recoveries=values.count("recoveries"),
        recovered=values.moment("recovered"),
        copied=values.moment("copied"),
        ahead=values.moment("ahead"),
        lead=values.count("lead"),
        node=values.text("node", ""),
    )


def _sighting_bytes(sighting: Sighting) -> bytes:
    return as_bytes(
        last_seen=sighting.last_seen,
        address=sighting.address,
        version=sighting.version,
        reason=sighting.reason[:MAX_REASON_CHARS] or None,
        replaced=sighting.replaced,
        replaced_from=sighting.replaced_from or None,
        came=sighting.came,
    )


def _sighting(body: bytes) -> Sighting:
    values = Fields(body)
    return Sighting(
        last_seen=values.needed("last_seen"),
        address=values.text("address"),
        version=values.text("version"),
        reason=values.text("reason", ""),
        replaced=values.moment("replaced"),
        replaced_from=values.text("replaced_from", ""),
        came=values.moment("came"),
    )


def _join_token_bytes(token: JoinTokenRecord) -> bytes:
    return as_bytes(
        agent=token.agent,
        expires=token.expires,
        used=token.used,
        count=token.count if token.count != 1 else None,
        names=list(token.names) or None,
        labels=dict(token.labels) or None,
        created=token.created,
        created_by=token.created_by or None,
        kubernetes=token.kubernetes or None,
    )


def _join_token(body: bytes) -> JoinTokenRecord:
    values = Fields(body)
    return JoinTokenRecord(
        agent=values.text("agent"),
        expires=values.needed("expires"),
        used=values.moment("used"),
        count=values.number("count", 1),
        names=values.texts("names") or (),
        labels=values.labels("labels"),
        created=values.moment("created"),
        created_by=values.text("created_by", ""),
        kubernetes=values.flag("kubernetes"),
    )


def _user_bytes(user: UserRecord) -> bytes:
    return as_bytes(
        name=user.name,
        groups=list(user.groups) or None,
        created=user.created,
        created_by=user.created_by or None,
        valid_from=user.valid_from,
        revoked=user.revoked,
        reason=user.reason or None,
    )


def _user(body: bytes) -> UserRecord:
    values = Fields(body)
    return UserRecord(
        name=values.text("name"),
        groups=values.texts("groups") or (),
        created=values.needed("created"),
        created_by=values.text("created_by", ""),
        valid_from=values.needed("valid_from"),
        revoked=values.moment("revoked"),
        reason=values.text("reason", ""),
    )


def _user_token_bytes(token: UserToken) -> bytes:
    return as_bytes(
        user=token.user,
        sha256=token.sha256,
        created=token.created,
        expires=token.expires,
        created_by=token.created_by or None,
        purpose=token.purpose if token.purpose != BEARER else None,
        **_scope_values(token.scope),
    )


def _user_token(body: bytes) -> UserToken:
    values = Fields(body)
    purpose = values.text("purpose", BEARER)
    if purpose not in (BEARER, LOGIN):
        raise ValueError(f"its purpose {purpose[:40]!r} is not known")
    return UserToken(
        user=values.text("user"),
        sha256=values.text("sha256"),
        created=values.needed("created"),
        expires=values.moment("expires"),
        scope=_scope(values),
        created_by=values.text("created_by", ""),
        purpose=purpose,
    )


def _certificate_bytes(certificate: UserCertificate) -> bytes:
    return as_bytes(
        serial=certificate.serial,
        user=certificate.user,
        created=certificate.created,
        expires=certificate.expires,
        created_by=certificate.created_by or None,
        login=certificate.login or None,
        authority=certificate.authority or None,
        **_scope_values(certificate.scope),
    )


def _certificate(body: bytes) -> UserCertificate:
    values = Fields(body)
    return UserCertificate(
        serial=values.text("serial"),
        user=values.text("user"),
        created=values.needed("created"),
        expires=values.needed("expires"),
        created_by=values.text("created_by", ""),
        scope=_scope(values),
        login=values.text("login", ""),
        authority=values.text("authority", ""),
    )


def _last_use_bytes(use: LastUse) -> bytes:
    return as_bytes(hour=use.hour)


def _last_use(body: bytes) -> LastUse:
    return LastUse(hour=Fields(body).needed("hour"))


AGENTS: Final = Kind("agent", _agent_bytes, _agent)
"""The records of agents, by name."""
SIGHTINGS: Final = Kind("sighting", _sighting_bytes, _sighting)
"""The records of sightings, by the agent's name."""
JOIN_TOKENS: Final = Kind("join token", _join_token_bytes, _join_token)
"""The records of tokens to join with, by the id in the certificate that each has inside."""
USERS: Final = Kind("user", _user_bytes, _user)
"""The records of users, by name."""
USER_TOKENS: Final = Kind("user token", _user_token_bytes, _user_token)
"""The records of users' tokens, by the SHA-256 of their text."""
USER_CERTIFICATES: Final = Kind("user certificate", _certificate_bytes, _certificate)
"""The records of users' certificates, by serial number."""
LAST_USED: Final = Kind("last use", _last_use_bytes, _last_use)
"""The records of last uses, by the key of the token or certificate."""
KINDS: Final = (AGENTS, SIGHTINGS, USER_TOKENS, JOIN_TOKENS, USERS, USER_CERTIFICATES, LAST_USED)


# Internal


def _scope_values(scope: Scope) -> dict[str, list[str] | None]:
    limits = {name: getattr(scope, name) for name in ("frontends", "agents", "verbs", "targets")}
    return {name: sorted(limit) if limit is not None else None for name, limit in limits.items()}


def _scope(values: Fields) -> Scope:
    def limit(name: str) -> frozenset[str] | None:
        texts = values.texts(name)
        return None if texts is None else frozenset(texts)

    scope = Scope(frontends=limit("frontends"), agents=limit("agents"), verbs=limit("verbs"), targets=limit("targets"))
    return scope if scope != UNLIMITED else UNLIMITED
