"""Changes and lists a server's records for an operator: the same functions in a running server and in a command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from cloud_server.trust.administration_failed import AdministrationFailed
from cloud_server.trust.agents import JoinedAgents
from cloud_server.trust.authenticator import PROOF_DIGITS
from cloud_server.trust.caller import UNLIMITED, Scope
from cloud_server.trust.labels import check_labels
from cloud_server.trust.records import (
    AGENTS,
    JOIN_TOKENS,
    SIGHTINGS,
    USER_CERTIFICATES,
    USER_TOKENS,
    AgentRecord,
    JoinTokenRecord,
    Sighting,
    UserCertificate,
    UserToken,
)
from cloud_server.trust.signer import Signer
from cloud_server.trust.signing_link import SignerFailed
from cloud_server.trust.store import Change, Record, Store, StoreUnavailable, Unreadable, value_of
from cloud_server.trust.tokens import DEFAULT_LIFE, MAX_COUNT, JoinTokens
from cloud_server.trust.user_administration import CERTIFICATE, UserAdministration
from cloud_server.trust.users import Users, taken_away
from tunnel.core.wire.faults import (
    AGENT_NAME_INVALID,
    AGENT_NOT_JOINED,
    AUTHORITY_IS_YOURS,
    NO_SUCH_TOKEN,
)
from tunnel.core.wire.names import AGENT_NAME_RULE, close_name, is_agent_name, is_agent_pattern, meant

LEAST_ID_CHARS = 4
"""The characters of an id that take a credential away. A slip of one key would else take somebody's."""


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
    """A token as lists show it, or a certificate that an operator made for a user. Nothing of it is secret."""

    token_id: str
    """The id that `revoke_tokens` takes: the first digits of the record's key. For a user's token that is its hash, as
    in the proofs of audit records. Of a certificate its whole serial.
    """
    user: str
    """The user whose token it is; empty for a token to join with."""
    purpose: str
    """BEARER, LOGIN or CERTIFICATE; empty for a token to join with."""
    agent: str
    """The name or pattern of the boxes that may join with it; empty for a user's token."""
    count: int
    """The number of boxes that may join with it; 0 for a user's token."""
    names: Sequence[str]
    """The boxes that joined with it."""
    labels: Mapping[str, str]
    """The labels that it gives the boxes that join."""
    created: datetime | None
    """When it was made; None when that is not known."""
    expires: datetime | None
    """When it ends; None when it does not end."""
    used: datetime | None
    """When a box joined with it last; for a user's token when it was shown last, to the hour. None when that never
    was."""
    created_by: str
    scope: Scope
    unreadable: str
    """Why its record cannot be read; empty when it can."""
    kubernetes: bool = False
    """Whether the boxes are nodes of a cluster, each of which joins as itself."""


class Revoked(NamedTuple):
    """How many credentials were taken away."""

    tokens: int
    certificates: int


class Administration:
    """The changes and lists that an operator may ask for."""

    def __init__(self, store: Store, agents: JoinedAgents, signer: Signer | None, users: Users) -> None:
        """Works on the records of `store`. `signer` is None with an authority of the user's own, which makes all
        certificates.
        """
        self.users = UserAdministration(store, users, signer)
        self._known_users = users
        self._store = store
        self._agents = agents
        self._signer = signer
        self._join_tokens = JoinTokens(store)

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

    async def create_join_token(
        self,
        agent: str,
        by: str,
        life: timedelta = DEFAULT_LIFE,
        *,
        count: int = 1,
        labels: Mapping[str, str] | None = None,
        kubernetes: bool = False,
    ) -> str:
        """Makes a token for a box, or for `count` boxes that choose names after a pattern. Returns its text.

        Args:
            agent: the box's name; a pattern such as `lyon-*` for boxes that choose.
            by: who asks for it.
            life: for how long it is valid.
            count: the number of boxes that may join, each with a name of its own; 1 for a name.
            labels: the labels that each of them gets.
            kubernetes: that they are nodes of the cluster, each of which joins as itself; `agent` is a pattern then,
                and `count` says nothing.

        Raises:
            AdministrationFailed: the name or a label cannot be used, or nothing can be signed or kept.
        """
        if "*" in agent:
            if not is_agent_pattern(agent):
                text = f"{agent[:80]!r} is no pattern of agents' names: {AGENT_NAME_RULE}, and *"
                raise AdministrationFailed(text, AGENT_NAME_INVALID)
        elif not is_agent_name(agent):
            text = f"{agent[:80]!r} cannot name an agent: {AGENT_NAME_RULE}"
            raise AdministrationFailed(text, AGENT_NAME_INVALID)
        elif count != 1:
            raise AdministrationFailed(
                f"{agent} names one box: several need a pattern such as {agent}-*", AGENT_NAME_INVALID
            )
        if not 1 <= count <= MAX_COUNT:
            raise AdministrationFailed(f"1 to {MAX_COUNT} boxes may join with one token", AGENT_NAME_INVALID)
        check_labels(labels or {})
        if self._signer is None:
            text = "certificates come from your own authority ([tunnel] client_ca): make them there"
            raise AdministrationFailed(text, AUTHORITY_IS_YOURS)
        try:
            token = await self._join_tokens.create(
                self._signer, agent, life, count=count, labels=labels or {}, by=by, kubernetes=kubernetes
            )
        except (SignerFailed, StoreUnavailable) as error:
            raise AdministrationFailed.of(error) from error
        return token.encode()

    def tokens(self) -> Sequence[ListedToken]:
        """Returns all tokens of users, the certificates that operators made for them, and the tokens to join with; used
        or expired ones are listed for a month, certificates for a day.
        """
        self._store.catch_up()
        found = [_user_token(record, self._known_users) for record in self._store.list(USER_TOKENS)]
        found += [
            _user_certificate(record, self._known_users)
            for record in self._store.list(USER_CERTIFICATES)
            if (made := value_of(record)) is None or not made.login
        ]
        return found + [_join_token(record) for record in self._store.list(JOIN_TOKENS)]

    async def revoke_tokens(self, *, token_id: str = "", user: str = "") -> Revoked:
        """Takes away the token whose id, or the certificate whose serial begins with `token_id`, or all tokens of a
        user; returns how many there were.

        Raises:
            AdministrationFailed: there is none, several have ids that begin so, it is too short to be meant, or the
                change cannot be kept.
        """
        self._store.catch_up()
        users = self._store.list(USER_TOKENS)
        gone: list[Change[Any]]
        if user:
            owners = {one.key: token.user for one in users if (token := value_of(one)) is not None}
            keys = [key for key, owner in owners.items() if owner == user]
            count, serials = len(keys), []
            gone = [change for key in keys for change in taken_away(self._store, USER_TOKENS, key)]
            missing = f"{user[:80]} has no token{meant(close_name(user, set(owners.values()).__contains__))}"
        else:
            joins = self._store.list(JOIN_TOKENS)
            of_users = [one.key for one in users if token_id and one.key.startswith(token_id)]
            of_boxes = [one.key for one in joins if token_id and one.key.startswith(token_id)]
            serial = token_id.replace(":", "").lower().lstrip("0")  # as records have it; others write it otherwise
            certificates = self._store.list(USER_CERTIFICATES)
            serials = [one.key for one in certificates if serial and one.key.startswith(serial)]
            count = len(of_users) + len(of_boxes) + len(serials)
            gone = [change for key in of_users for change in taken_away(self._store, USER_TOKENS, key)]
            gone += [Change(JOIN_TOKENS, key, None) for key in of_boxes]
            gone += [change for key in serials for change in taken_away(self._store, USER_CERTIFICATES, key)]
            missing = f"there is no token or certificate {token_id[:80]}: cloud-server token list shows all"
        if not gone:
            raise AdministrationFailed(missing, NO_SUCH_TOKEN)
        if token_id and len(token_id) < LEAST_ID_CHARS:
            text = f"{token_id} is too little of an id: give {LEAST_ID_CHARS} characters or more"
            raise AdministrationFailed(text, NO_SUCH_TOKEN)
        if token_id and count > 1:
            text = f"{count} tokens or certificates begin with {token_id[:80]}: give more of it"
            raise AdministrationFailed(text, NO_SUCH_TOKEN)
        try:
            await self._store.commit(*gone)
        except StoreUnavailable as error:
            raise AdministrationFailed.of(error) from error
        return Revoked(count - len(serials), len(serials))

    async def label_agent(self, name: str, labels: Mapping[str, str | None]) -> Mapping[str, str]:
        """Gives an agent labels; a label of None is taken away. Returns the labels that it has then.

        Raises:
            AdministrationFailed: the agent has not joined, a label cannot be used, or the change cannot be kept.
        """
        check_labels({key: value or "" for key, value in labels.items()})
        merged = {**self._agents.labels(name), **labels}
        check_labels({key: value for key, value in merged.items() if value is not None})
        try:
            done = await self._agents.label(name, labels)
        except StoreUnavailable as error:
            raise AdministrationFailed.of(error) from error
        self._check_known(name, known=done)
        return self._agents.labels(name)

    async def revoke_agent(self, name: str, reason: str = "") -> None:
        """Takes an agent's name away, and with it the unused tokens for it.

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


def _user_token(record: Record[UserToken], users: Users) -> ListedToken:
    token = value_of(record)
    return _of_user(record.key[:PROOF_DIGITS], token.purpose if token is not None else "", record, users)


def _user_certificate(record: Record[UserCertificate], users: Users) -> ListedToken:
    return _of_user(record.key, CERTIFICATE, record, users)


def _of_user(token_id: str, purpose: str, record: Record[Any], users: Users) -> ListedToken:
    made: UserToken | UserCertificate | None = value_of(record)
    return ListedToken(
        token_id=token_id,
        user=made.user if made is not None else "",
        purpose=purpose,
        agent="",
        count=0,
        names=(),
        labels={},
        created=made.created if made is not None else None,
        expires=made.expires if made is not None else None,
        used=users.last_used(record.key),
        created_by=made.created_by if made is not None else "",
        scope=made.scope if made is not None else UNLIMITED,
        unreadable=_fault(record),
    )


def _join_token(record: Record[JoinTokenRecord]) -> ListedToken:
    token = value_of(record)
    return ListedToken(
        token_id=record.key[:PROOF_DIGITS],
        user="",
        purpose="",
        agent=token.agent if token is not None else "",
        count=token.count if token is not None else 1,
        names=token.names if token is not None else (),
        kubernetes=token is not None and token.kubernetes,
        labels=token.labels if token is not None else {},
        created=token.created if token is not None else None,
        expires=token.expires if token is not None else None,
        used=token.used if token is not None else None,
        created_by=token.created_by if token is not None else "",
        scope=UNLIMITED,
        unreadable=_fault(record),
    )


def _fault(record: Record[Any]) -> str:
    return record.reason if isinstance(record, Unreadable) else ""
