"""Declares the kinds of records that a server keeps, and how each is written: as JSON, which a person can read too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from cloud_server.trust.authenticator import UserToken
from cloud_server.trust.caller import UNLIMITED, Scope
from cloud_server.trust.store import Kind
from tunnel.aio.identity.validity import Validity

MAX_REASON_CHARS = 200
"""The most characters that are kept of why a link was lost: a peer may have put it."""


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
    """When its link began last; None: it was not noted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTokenRecord:
    """The record of a one-time token to join with."""

    agent: str
    expires: datetime
    used: datetime | None = None


def _agent_bytes(record: AgentRecord) -> bytes:
    validity = record.validity
    return _bytes(
        name=record.name,
        joined=record.joined,
        spki_sha256=record.spki_sha256,
        revoked=record.revoked,
        reason=record.reason or None,
        certificate_from=validity.not_before if validity is not None else None,
        certificate_until=validity.not_after if validity is not None else None,
    )


def _agent(body: bytes) -> AgentRecord:
    values = _values(body)
    begin, end = _moment(values, "certificate_from"), _moment(values, "certificate_until")
    return AgentRecord(
        name=_text(values, "name"),
        joined=_needed(values, "joined"),
        spki_sha256=_text(values, "spki_sha256"),
        revoked=_moment(values, "revoked"),
        reason=_text(values, "reason", ""),
        validity=Validity(begin, end) if begin is not None and end is not None else None,
    )


def _sighting_bytes(sighting: Sighting) -> bytes:
    return _bytes(
        last_seen=sighting.last_seen,
        address=sighting.address,
        version=sighting.version,
        reason=sighting.reason[:MAX_REASON_CHARS] or None,
        replaced=sighting.replaced,
        replaced_from=sighting.replaced_from or None,
        came=sighting.came,
    )


def _sighting(body: bytes) -> Sighting:
    values = _values(body)
    return Sighting(
        last_seen=_needed(values, "last_seen"),
        address=_text(values, "address"),
        version=_text(values, "version"),
        reason=_text(values, "reason", ""),
        replaced=_moment(values, "replaced"),
        replaced_from=_text(values, "replaced_from", ""),
        came=_moment(values, "came"),
    )


def _user_token_bytes(token: UserToken) -> bytes:
    scope = token.scope
    return _bytes(
        user=token.user,
        sha256=token.sha256,
        created=token.created,
        expires=token.expires,
        groups=list(token.groups) or None,
        frontends=sorted(scope.frontends) if scope.frontends is not None else None,
        agents=sorted(scope.agents) if scope.agents is not None else None,
        verbs=sorted(scope.verbs) if scope.verbs is not None else None,
    )


def _user_token(body: bytes) -> UserToken:
    values = _values(body)
    scope = Scope(frontends=_set(values, "frontends"), agents=_set(values, "agents"), verbs=_set(values, "verbs"))
    return UserToken(
        user=_text(values, "user"),
        sha256=_text(values, "sha256"),
        created=_needed(values, "created"),
        expires=_moment(values, "expires"),
        groups=tuple(_texts(values, "groups") or ()),
        scope=scope if scope != UNLIMITED else UNLIMITED,
    )


def _join_token_bytes(token: JoinTokenRecord) -> bytes:
    return _bytes(agent=token.agent, expires=token.expires, used=token.used)


def _join_token(body: bytes) -> JoinTokenRecord:
    values = _values(body)
    return JoinTokenRecord(
        agent=_text(values, "agent"), expires=_needed(values, "expires"), used=_moment(values, "used")
    )


AGENTS: Final = Kind("agent", _agent_bytes, _agent)
"""The records of agents, by name."""
SIGHTINGS: Final = Kind("sighting", _sighting_bytes, _sighting)
"""The records of sightings, by the agent's name."""
USER_TOKENS: Final = Kind("user token", _user_token_bytes, _user_token)
"""The records of users' tokens, by the SHA-256 of their text."""
JOIN_TOKENS: Final = Kind("join token", _join_token_bytes, _join_token)
"""The records of tokens to join with, by the id in the certificate that each has inside."""
KINDS: Final = (AGENTS, SIGHTINGS, USER_TOKENS, JOIN_TOKENS)


# Internal


def _bytes(**values: object) -> bytes:
    """Returns these values as JSON, without those that are None."""
    kept = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in values.items()
        if value is not None
    }
    return json.dumps(kept).encode()


def _values(body: bytes) -> Mapping[str, Any]:
    values = json.loads(body)
    if not isinstance(values, dict):
        raise TypeError("it is no object")
    return values


def _text(values: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = values.get(name, default)
    if not isinstance(value, str):
        raise TypeError(f"{name} is no text")
    return value


def _needed(values: Mapping[str, Any], name: str) -> datetime:
    return datetime.fromisoformat(_text(values, name))


def _moment(values: Mapping[str, Any], name: str) -> datetime | None:
    return None if values.get(name) is None else _needed(values, name)


def _texts(values: Mapping[str, Any], name: str) -> list[str] | None:
    value = values.get(name)
    if value is not None and not (isinstance(value, list) and all(isinstance(one, str) for one in value)):
        raise TypeError(f"{name} is no list of texts")
    return value


def _set(values: Mapping[str, Any], name: str) -> frozenset[str] | None:
    texts = _texts(values, name)
    return None if texts is None else frozenset(texts)
