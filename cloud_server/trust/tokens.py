"""Keeps the join tokens on the server's side. Each lets one box join once, or several boxes that choose their names."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from cloud_server.trust.records import JOIN_TOKENS, JoinTokenRecord
from cloud_server.trust.signer import JoinCredential
from cloud_server.trust.store import Change, Good, Store
from tunnel.aio.identity.join_token import JoinToken
from tunnel.aio.identity.validity import date
from tunnel.core.wire.faults import (
    JOIN_NAME_REFUSED,
    RECORD_UNREADABLE,
    TOKEN_EXPIRED,
    TOKEN_UNKNOWN,
    TOKEN_USED,
    FaultError,
)
from tunnel.core.wire.globs import matches
from tunnel.core.wire.names import is_agent_name

DEFAULT_LIFE = timedelta(hours=24)
GRACE = timedelta(days=30)
"""How long the certificate inside outlives the token, so that a late box is told what is wrong, not cut off in the
handshake.
"""
MAX_COUNT = 1000
"""The most boxes of one token: it keeps their names, of up to 63 bytes each."""
USED = "the join token was used already; make another: cloud-server token create"


class TokenRefused(FaultError):
    """A token cannot be used; the text is for the box's owner."""

    default_fault = TOKEN_UNKNOWN


class TokenUnreadable(FaultError):
    """The record of a token cannot be read now; the text is for the operator."""

    default_fault = RECORD_UNREADABLE


class Issuer(Protocol):
    """The maker of what is inside a join token, who has the authority's key."""

    async def join_credential(self, token_id: str, life: timedelta, agent: str) -> JoinCredential:
        """Returns the credential that a box shows which has the token of this id; it is valid for `life`, and for the
        name, or the pattern of names, `agent`.

        Raises:
            SignerFailed: it cannot be made.
        """
        ...


class JoinTokens:
    """The tokens to join with that a store has records of."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(
        self,
        issuer: Issuer,
        agent: str,
        life: timedelta = DEFAULT_LIFE,
        *,
        count: int = 1,
        labels: Mapping[str, str] | None = None,
        by: str = "",
        kubernetes: bool = False,
    ) -> JoinToken:
        """Makes a token for an agent, or for `count` agents whose names match a pattern.

        Any number of tokens may exist. `kubernetes` says that it is for nodes of a cluster, see JoinTokenRecord.

        Raises:
            StoreUnavailable: its record cannot be written.
            SignerFailed: there is no authority of ours that could be joined.
        """
        token_id = secrets.token_hex(16)
        credential = await issuer.join_credential(token_id, life + GRACE, agent)
        now = datetime.now(UTC)
        expires = now + life
        record = JoinTokenRecord(
            agent=agent,
            expires=expires,
            count=count,
            labels=labels or {},
            created=now,
            created_by=by,
            kubernetes=kubernetes,
        )
        await self._store.commit(Change(JOIN_TOKENS, token_id, record, 0))
        return JoinToken(
            agent=agent,
            expires=expires,
            ca_pem=credential.ca_pem,
            certificate_pem=credential.certificate_pem,
            key_pem=credential.key_pem,
        )

    def look(self, token_id: str) -> Good[JoinTokenRecord]:
        """Returns the record of a token that may be used.

        Raises:
            TokenRefused: the token is unknown, used or expired.
            TokenUnreadable: that cannot be told now.
        """
        self._store.catch_up()  # a command may have made it just now, or another server used it
        found = self._store.get(JOIN_TOKENS, token_id)
        if found is None:
            raise TokenRefused("the join token is not known here; make one: cloud-server token create")
        if not isinstance(found, Good):
            raise TokenUnreadable(f"what is kept of the join token {token_id} cannot be read: {found.reason}")
        record = found.value
        if record.used is not None and not record.left:
            raise TokenRefused(USED, TOKEN_USED)
        now = datetime.now(UTC)
        if now >= record.expires:
            clock = f"the server's clock says {date(now)}"
            raise TokenRefused(
                f"the join token expired at {date(record.expires)} ({clock}); make another", TOKEN_EXPIRED
            )
        return found

    @staticmethod
    def name_by(token: Good[JoinTokenRecord], chosen: str) -> str:
        """Returns the name that a box gets. `chosen` is the name that it asks for; empty when it asks for none.

        Raises:
            TokenRefused: the token does not give that name.
        """
        pattern = token.value.agent
        if "*" not in pattern:
            if chosen and chosen != pattern:
                text = f"the token is for {pattern}, not for {chosen[:80]}: leave --name away, or make another"
                raise TokenRefused(text, JOIN_NAME_REFUSED)
            return pattern
        if not chosen:
            raise TokenRefused(f"the token is for names like {pattern}: say one with --name", JOIN_NAME_REFUSED)
        if not is_agent_name(chosen) or not matches(pattern, chosen):
            raise TokenRefused(f"{chosen[:80]!r} is no name like {pattern}", JOIN_NAME_REFUSED)
        return chosen

    @staticmethod
    def use(token: Good[JoinTokenRecord], name: str) -> Change[JoinTokenRecord]:
        """Returns the change that uses a token.

        The caller must commit it together with what the token is used for: of several at the same time, one succeeds.
        """
        # The nodes of a cluster are on record themselves, and as many as the cluster says.
        names = token.value.names if token.value.kubernetes else (*token.value.names, name)
        used = replace(token.value, used=datetime.now(UTC), names=names)
        return Change(JOIN_TOKENS, token.key, used, expected=token.version)

    async def tidy(self) -> int:
        """Takes away what is known of tokens that nobody can show any more; returns how many there were.

        Raises:
            StoreUnavailable: that cannot be written.
        """
        before = datetime.now(UTC) - GRACE
        over = [
            Change(JOIN_TOKENS, record.key, None)
            for record in self._store.list(JOIN_TOKENS)
            if isinstance(record, Good) and record.value.expires < before
        ]
        if over:
            await self._store.commit(*over)
        return len(over)
