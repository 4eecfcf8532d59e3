"""Makes and checks tokens on the server's side: for boxes to join with, once; and for users, who show them again and
again.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol

from cloud_server.trust.authenticator import UserToken, token_digest, token_proof
from cloud_server.trust.records import JOIN_TOKENS, USER_TOKENS, JoinTokenRecord
from cloud_server.trust.signer import JoinCredential
from cloud_server.trust.store import Change, Good, Record, Store, value_of
from tunnel.aio.identity.join_token import JoinToken
from tunnel.aio.identity.validity import date
from tunnel.core.wire.faults import RECORD_UNREADABLE, TOKEN_EXPIRED, TOKEN_UNKNOWN, TOKEN_USED, FaultError

DEFAULT_LIFE = timedelta(hours=24)
GRACE = timedelta(days=30)
"""How long the certificate inside outlives the token, so that a late box is told what is wrong, not cut off in the
handshake.
"""
TOKEN_BYTES = 32
"""The number of random bytes in a user's token."""
USED = "the join token was used already; make another: cloud-server token create"


class TokenRefused(FaultError):
    """A token cannot be used; the text is for the box's owner."""

    default_fault = TOKEN_UNKNOWN


class TokenUnreadable(FaultError):
    """The record of a token cannot be read now; the text is for the operator."""

    default_fault = RECORD_UNREADABLE


class Issuer(Protocol):
    """The maker of what is inside a join token, who has the authority's key."""

    async def join_credential(self, token_id: str, life: timedelta) -> JoinCredential:
        """Returns the credential that a box shows which has the token of this id; it is valid for `life`.

        Raises:
            SignerFailed: it cannot be made.
        """
        ...


class JoinTokens:
    """The tokens to join with that a store has records of."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def create(self, issuer: Issuer, agent: str, life: timedelta = DEFAULT_LIFE) -> JoinToken:
        """Makes a token for an agent; any number may be out at a time.

        Raises:
            StoreUnavailable: it cannot be kept.
            SignerFailed: there is no authority of ours that could be joined.
        """
        token_id = secrets.token_hex(16)
        credential = await issuer.join_credential(token_id, life + GRACE)
        expires = datetime.now(UTC) + life
        await self._store.commit(Change(JOIN_TOKENS, token_id, JoinTokenRecord(agent=agent, expires=expires), 0))
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
        if record.used is not None:
            raise TokenRefused(USED, TOKEN_USED)
        now = datetime.now(UTC)
        if now >= record.expires:
            clock = f"the server's clock says {date(now)}"
            raise TokenRefused(
                f"the join token expired at {date(record.expires)} ({clock}); make another", TOKEN_EXPIRED
            )
        return found

    @staticmethod
    def use(token: Good[JoinTokenRecord]) -> Change[JoinTokenRecord]:
        """Returns the change that uses a token up, to be committed with what it is used for: only one can succeed."""
        used = replace(token.value, used=datetime.now(UTC))
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


class UserTokens:
    """The tokens of users that a store has records of; see `authenticator.Credentials`."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def user_token(self, sha256: str) -> UserToken | None:
        """Returns the token with this hash, expired or not; None when there is none. See `authenticator.Credentials`.

        One that is not known is looked for in the database, since a command may have made it just now. That costs
        whoever tries wrong tokens as much of us as the hash of each: some 20 us.
        """
        found = self._store.get(USER_TOKENS, sha256)
        if found is None:
            self._store.catch_up()
            found = self._store.get(USER_TOKENS, sha256)
        return value_of(found)

    def when_lost(self, on_lost: Callable[[str], None]) -> None:
        """Makes `on_lost` be called with the proof (see `Principal`) of each token that is revoked from now on."""

        def changed(sha256: str, _before: Record[UserToken] | None, after: Record[UserToken] | None) -> None:
            if after is None:
                on_lost(token_proof(sha256))

        self._store.watch(USER_TOKENS, changed)

    async def create(self, user: str, life: timedelta | None = None) -> str:
        """Makes a token for a user, beside those that the user has, and returns its text; only its hash is kept. With
        `life` None it does not end.

        Raises:
            StoreUnavailable: it cannot be kept.
        """
        text = secrets.token_urlsafe(TOKEN_BYTES)
        now = datetime.now(UTC)
        expires = now + life if life is not None else None
        token = UserToken(user=user, sha256=token_digest(text), created=now, expires=expires)
        await self._store.commit(Change(USER_TOKENS, token.sha256, token, expected=0))
        return text
