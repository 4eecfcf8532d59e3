"""What an operator does to the records of a server: the same functions in a running server and in a command."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from cloud_server.trust.agents import JoinedAgents
from cloud_server.trust.authenticator import PROOF_DIGITS, UserToken
from cloud_server.trust.names import USER_NAME_RULE, is_user_name
from cloud_server.trust.records import (
    AGENTS,
    JOIN_TOKENS,
    SIGHTINGS,
    USER_TOKENS,
    AgentRecord,
    JoinTokenRecord,
    Sighting,
)
from cloud_server.trust.signer import Signer, SignerFailed
from cloud_server.trust.store import Change, Record, Store, StoreUnavailable, Unreadable, value_of
from cloud_server.trust.tokens import DEFAULT_LIFE, JoinTokens, UserTokens
from tunnel.core.wire.faults import (
    AGENT_NAME_INVALID,
    AGENT_NOT_JOINED,
    AUTHORITY_IS_YOURS,
    NO_SUCH_TOKEN,
    STATE_NOT_WRITABLE,
    USER_NAME_INVALID,
    FaultError,
)
from tunnel.core.wire.names import AGENT_NAME_RULE, close_name, is_agent_name, meant


class AdministrationFailed(FaultError):
    """Nothing was changed; the text says why and what to do."""

    default_fault = STATE_NOT_WRITABLE

    @classmethod
    def of(cls, error: FaultError) -> AdministrationFailed:
        """For what a part of ours could not do."""
        return cls(error.text, error.fault)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedAgent:
    """An agent for lists, joined, revoked or not to be read."""

    name: str
    record: AgentRecord | None
    """None: it cannot be read."""
    unreadable: str
    """Why its record cannot be read; empty when it can. `record` is what was known before then."""
    sighting: Sighting | None
    """None: it never came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedToken:
    """A token for lists. Nothing of it is secret."""

    token_id: str
    """What `revoke_tokens` takes; of a user's token the first digits of its hash, as in the proofs of audit records."""
    user: str
    """Whose it is; empty for a token to join with."""
    agent: str
    """Whom it lets join; empty for a user's."""
    created: datetime | None
    """None: it is not known."""
    expires: datetime | None
    """None: it does not end."""
    used: datetime | None
    """When somebody joined with it; None: nobody did."""
    unreadable: str
    """Why its record cannot be read; empty when it can."""


class Administration:
    """Changes and lists."""

    def __init__(self, store: Store, agents: JoinedAgents, signer: Signer | None) -> None:
        """`signer`: None with an authority of the user's own, which makes all certificates."""
        self._store = store
        self._agents = agents
        self._signer = signer
        self._join_tokens = JoinTokens(store)
        self._user_tokens = UserTokens(store)

    # Public

    def agents(self) -> Sequence[ListedAgent]:
        """All agents, by name."""
        return [listed for name in self.agent_names() if (listed := self.agent(name)) is not None]

    def agent_names(self) -> Sequence[str]:
        """The names of all agents, the revoked among them, in order."""
        self._store.catch_up()
        return [record.key for record in self._store.list(AGENTS)]

    def agent(self, name: str) -> ListedAgent | None:
        """One agent; None when no agent of that name joined."""
        record = self._store.get(AGENTS, name)
        if record is None:
            return None
        return ListedAgent(
            name=record.key,
            record=value_of(record),
            unreadable=record.reason if isinstance(record, Unreadable) else "",
            sighting=value_of(self._store.get(SIGHTINGS, record.key)),
        )

    async def create_join_token(self, agent: str, life: timedelta = DEFAULT_LIFE) -> str:
        """A one-time token for a box.

        Raises:
            AdministrationFailed: the name cannot be used, or nothing can be signed or kept.
        """
        if not is_agent_name(agent):
            raise AdministrationFailed(f"{agent[:80]!r} cannot name an agent: {AGENT_NAME_RULE}", AGENT_NAME_INVALID)
        if self._signer is None:
            text = "certificates come from your own authority ([tunnel] client_ca): make them there"
            raise AdministrationFailed(text, AUTHORITY_IS_YOURS)
        try:
            return (await self._join_tokens.create(self._signer, agent, life)).encode()
        except (SignerFailed, StoreUnavailable) as error:
            raise AdministrationFailed.of(error) from error

    async def create_user_token(self, user: str, life: timedelta | None = None) -> str:
        """A bearer token for a user; only its hash is kept. `life` None: it does not end.

        Raises:
            AdministrationFailed: as above.
        """
        check_user_name(user)
        try:
            return await self._user_tokens.create(user, life)
        except StoreUnavailable as error:
            raise AdministrationFailed.of(error) from error

    def tokens(self) -> Sequence[ListedToken]:
        """All tokens of users, and those to join with, used or expired ones for a month."""
        self._store.catch_up()
        found = [_user_token(record) for record in self._store.list(USER_TOKENS)]
        return found + [_join_token(record) for record in self._store.list(JOIN_TOKENS)]

    async def revoke_tokens(self, *, token_id: str = "", user: str = "") -> int:
        """Take away the token whose id begins so, or all tokens of a user; returns how many there were.

        Raises:
            AdministrationFailed: there is none, several have ids that begin so, or that cannot be kept.
        """
        self._store.catch_up()
        users = self._store.list(USER_TOKENS)
        gone: list[Change[Any]]
        if user:
            owners = {one.key: token.user for one in users if (token := value_of(one)) is not None}
            gone = [Change(USER_TOKENS, key, None) for key, owner in owners.items() if owner == user]
            missing = f"{user[:80]} has no token{meant(close_name(user, set(owners.values()).__contains__))}"
        else:
            joins = self._store.list(JOIN_TOKENS)
            gone = [Change(USER_TOKENS, one.key, None) for one in users if token_id and one.key.startswith(token_id)]
            gone += [Change(JOIN_TOKENS, one.key, None) for one in joins if token_id and one.key.startswith(token_id)]
            missing = f"there is no token {token_id[:80]}: cloud-server token list shows all"
        if not gone:
            raise AdministrationFailed(missing, NO_SUCH_TOKEN)
        if token_id and len(gone) > 1:
            text = f"{len(gone)} tokens begin with {token_id[:80]}: give more of it"
            raise AdministrationFailed(text, NO_SUCH_TOKEN)
        try:
            await self._store.commit(*gone)
        except StoreUnavailable as error:
            raise AdministrationFailed.of(error) from error
        return len(gone)

    async def revoke_agent(self, name: str, reason: str = "") -> None:
        """Take an agent's name away.

        Raises:
            AdministrationFailed: it has not joined, or that cannot be kept.
        """
        try:
            done = await self._agents.revoke(name, reason)
        except StoreUnavailable as error:
            raise AdministrationFailed.of(error) from error
        self._check_known(name, known=done)

    async def forget_agent(self, name: str) -> None:
        """Know nothing of an agent any more.

        Raises:
            AdministrationFailed: as above.
        """
        try:
            done = await self._agents.forget(name)
        except StoreUnavailable as error:
            raise AdministrationFailed.of(error) from error
        self._check_known(name, known=done)

    # Internal

    def _check_known(self, name: str, *, known: bool) -> None:
        if not known:
            close = close_name(name, lambda other: self._store.get(AGENTS, other) is not None)
            raise AdministrationFailed(f"{name[:80]} has not joined{meant(close)}", AGENT_NOT_JOINED)


def check_user_name(user: str) -> None:
    """Make sure that a text may name a user.

    Raises:
        AdministrationFailed: it may not.
    """
    if not is_user_name(user):
        raise AdministrationFailed(f"{user[:80]!r} cannot name a user: {USER_NAME_RULE}", USER_NAME_INVALID)


def _user_token(record: Record[UserToken]) -> ListedToken:
    token = value_of(record)
    return ListedToken(
        token_id=record.key[:PROOF_DIGITS],
        user=token.user if token is not None else "",
        agent="",
        created=token.created if token is not None else None,
        expires=token.expires if token is not None else None,
        used=None,
        unreadable=_fault(record),
    )


def _join_token(record: Record[JoinTokenRecord]) -> ListedToken:
    token = value_of(record)
    return ListedToken(
        token_id=record.key[:PROOF_DIGITS],
        user="",
        agent=token.agent if token is not None else "",
        created=None,
        expires=token.expires if token is not None else None,
        used=token.used if token is not None else None,
        unreadable=_fault(record),
    )


def _fault(record: Record[Any]) -> str:
    return record.reason if isinstance(record, Unreadable) else ""
