"""Changes and lists a server's records for an operator: the same functions in a running server and in a command."""

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
        """Returns this failure with the text and the fault of an error of one of our parts."""
        return cls(error.text, error.fault)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedAgent:
    """An agent as lists show it: joined, revoked, or with a record that cannot be read."""

    name: str
    record: AgentRecord | None
    """The record; None when it cannot be read and was never known."""
    unreadable: str
    """Why its record cannot be read; empty when it can. `record` is what was known before then."""
    sighting: Sighting | None
    """The last sighting of the agent; None when it never came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedToken:
    """A token as lists show it. Nothing of it is secret."""

    token_id: str
    """The id that `revoke_tokens` takes: the first digits of the record's key. For a user's token that is its hash, as
    in the proofs of audit records.
    """
    user: str
    """The user whose token it is; empty for a token to join with."""
    agent: str
    """The agent that it lets join; empty for a user's token."""
    created: datetime | None
    """When it was made; None when that is not known."""
    expires: datetime | None
    """When it ends; None when it does not end."""
    used: datetime | None
    """When somebody joined with it; None when nobody did."""
    unreadable: str
    """Why its record cannot be read; empty when it can."""


class Administration:
    """The changes and lists that an operator may ask for."""

    def __init__(self, store: Store, agents: JoinedAgents, signer: Signer | None) -> None:
        """Works on the records of `store`. `signer` is None with an authority of the user's own, which makes all
        certificates.
        """
        self._store = store
        self._agents = agents
        self._signer = signer
        self._join_tokens = JoinTokens(store)
        self._user_tokens = UserTokens(store)

    # Public

    def agents(self) -> Sequence[ListedAgent]:
        """Returns all agents, by name."""
        return [listed for name in self.agent_names() if (listed := self.agent(name)) is not None]

    def agent_names(self) -> Sequence[str]:
        """Returns the names of all agents, also of the revoked, in order."""
        self._store.catch_up()
        return [record.key for record in self._store.list(AGENTS)]

    def agent(self, name: str) -> ListedAgent | None:
        """Returns one agent; None when no agent of that name joined."""
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
        """Returns a new one-time token for a box, which is good for `life`.

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
        """Returns a new bearer token for a user; only its hash is kept. With `life` None it does not end.

        Raises:
            AdministrationFailed: the name cannot be used, or the token cannot be kept.
        """
        check_user_name(user)
        try:
            return await self._user_tokens.create(user, life)
        except StoreUnavailable as error:
            raise AdministrationFailed.of(error) from error

    def tokens(self) -> Sequence[ListedToken]:
        """Returns all tokens of users, and those to join with; used or expired ones are listed for a month."""
        self._store.catch_up()
        found = [_user_token(record) for record in self._store.list(USER_TOKENS)]
        return found + [_join_token(record) for record in self._store.list(JOIN_TOKENS)]

    async def revoke_tokens(self, *, token_id: str = "", user: str = "") -> int:
        """Takes away the token whose id begins with `token_id`, or all tokens of a user; returns how many there were.

        Raises:
            AdministrationFailed: there is none, several have ids that begin so, or the change cannot be kept.
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
        """Takes an agent's name away.

        Raises:
            AdministrationFailed: the agent has not joined, or the change cannot be kept.
        """
        try:
            done = await self._agents.revoke(name, reason)
        except StoreUnavailable as error:
            raise AdministrationFailed.of(error) from error
        self._check_known(name, known=done)

    async def forget_agent(self, name: str) -> None:
        """Forgets an agent, as if it had never joined.

        Raises:
            AdministrationFailed: the agent has not joined, or the change cannot be kept.
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
    """Makes sure that a text may name a user.

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
