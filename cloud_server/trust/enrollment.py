"""Decides who gets an agent's certificate by Join, Renew and Recover. It audits decisions, and also logs failures."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import structlog

from cloud_server.trust.agents import IdentityRejected, JoinedAgents
from cloud_server.trust.node_tokens import NodeTokenRefused, NodeTokens
from cloud_server.trust.records import AGENTS, AgentRecord, JoinTokenRecord
from cloud_server.trust.signer import CsrRefused, Signed, Signer
from cloud_server.trust.signing_link import SignerFailed
from cloud_server.trust.store import Change, Conflict, Good, Store, StoreUnavailable, value_of
from cloud_server.trust.tokens import USED, JoinTokens, TokenRefused, TokenUnreadable
from cloud_server.trust.turns import CopiedDisk, TooFarAhead, Turn, check_uncounted
from protos import tunnel_pb2
from tunnel.aio.carriers.carrier_errors import EnrollmentRefused
from tunnel.aio.identity.certificate import read_certificate
from tunnel.aio.identity.peer_identity import Presented
from tunnel.aio.operate.audit import Audit
from tunnel.aio.process.limit_use import LimitUse
from tunnel.core.path.rate import Rate, TokenBuckets
from tunnel.core.wire.errors import SessionRefused, TunnelError
from tunnel.core.wire.faults import (
    JOIN_NAME_REFUSED,
    NODE_TOKEN_REFUSED,
    RENEWED_TOO_OFTEN,
    REQUEST_REFUSED,
    TOKEN_USED,
    FaultError,
)
from tunnel.core.wire.spoken import spoken_s

_log = structlog.get_logger("cloud.enrollment")

CANNOT_SIGN = "the server cannot sign certificates; its log says more"
CANNOT_KEEP = "the server cannot write its state folder; its log says more"
STILL_GOOD = "the token is still good"
RENEWALS = Rate(1 / 30, 10)
"""The renewals that one agent may ask for. An agent renews every few days, and tries again once a minute where that
fails; each costs the signing process a signature, and the audit log a record."""
JOINS = Rate(1 / 30, 10)
"""With one join token, beside the boxes that it is for: a box that tries again after a lost answer, or a wrong name."""
REVIEWS_PER_S = 5.0
REVIEWS_BURST = 200
"""With one join token for nodes of a cluster, which all of them have: each try costs the cluster's API a question."""
TOLD_EVERY = timedelta(minutes=1)
"""How often it is noted that the same agent was refused for its number."""


class Enrollment:
    """Answers the calls of agents that want certificates; see `tunnel.aio.carriers.enrollment.EnrollmentHandler`."""

    def __init__(
        self,
        signer: Signer,
        store: Store,
        agents: JoinedAgents,
        on_joined: Callable[[str, TunnelError], None],
        audit: Audit,
        nodes: NodeTokens,
        renewals: Rate = RENEWALS,
        joins: Rate = JOINS,
    ) -> None:
        """Decides by the records of `store`, and has certificates signed by `signer`. `on_joined` ends what an earlier
        key of the name still holds; it is called before the new key has a certificate. `nodes` tells by which name a
        node of a cluster joins.

        `renewals` is how often one agent may ask for a certificate, `joins` how often one token may be shown beside the
        boxes that it is for.
        """
        self._nodes = nodes
        self._signer = signer
        self._store = store
        self._tokens = JoinTokens(store)
        self._agents = agents
        self._on_joined = on_joined
        self._audit = audit
        self._renewals = TokenBuckets(*renewals)
        self._joins = TokenBuckets(*joins)
        """By the token's id. Only tokens that are good get this far, so that strangers fill no memory."""
        self._reviews = TokenBuckets(REVIEWS_PER_S, REVIEWS_BURST)
        """By the token's id, too."""

    def use(self, renewals: Rate, joins: Rate) -> None:
        """Holds agents and tokens to other rates from now on. What they used counts on."""
        self._renewals.change(*renewals)
        self._joins.change(*joins)

    def boxes_left(self, uri: str) -> int:
        """Returns how many boxes may still join with the join certificate of this name; 0 for one that is of no use."""
        try:
            return self._tokens.look(_token_id(uri)).value.left
        except (TokenRefused, TokenUnreadable):  # whoever shows it is told so in the answer to their request
            return 0

    def use_of_limits(self) -> Iterator[LimitUse]:
        """Yields how much is spent of what an agent, or a token, may ask for at once."""
        now = asyncio.get_running_loop().time()
        for name, buckets in (("renewals_at_once", self._renewals), ("joins_at_once", self._joins)):
            yield LimitUse(name, buckets.burst, buckets.most_spent(now))

    async def join(self, peer: Presented, request: tunnel_pb2.JoinRequest) -> tunnel_pb2.JoinResponse:
        """Trade a token for a certificate; a token for a name that is taken gives the name to the new key.

        The certificate is made first; then the token is used and the name given to the key in one step, of which there
        are as many as the token has boxes; then the certificate is handed out. So what fails before the answer costs no
        token, and of two boxes that come for one name only that one gets a certificate whose key has it.

        Raises:
            EnrollmentRefused: the text tells the box's owner what to do; also when the token is shown too often.
        """
        token_id = _token_id(peer.uri)
        try:
            token = self._tokens.look(token_id)
            node = await self._node(token, request.kubernetes_token)
            name = self._tokens.name_by(token, node or request.agent_name)
            self._check_free(token.value, name, node)
            self._admit_join(token, node)
            signed = await self._signer.sign(name, request.csr_der, peer.der)
            await self._take(token, name, signed, node)
        except (TokenRefused, CsrRefused, EnrollmentRefused, NodeTokenRefused) as refused:
            code, text = refused.fault.code, str(refused)
            # Whoever has any token of ours, used or not, may ask as often as they like.
            self._audit.record_folded("join_refused", token_id, token=token_id, code=code, text=text)
            raise EnrollmentRefused(refused.text, refused.fault, _retry_after_s(refused)) from refused
        except (SignerFailed, StoreUnavailable, TokenUnreadable) as error:
            _log.error("join failed", code=error.fault.code, token=token_id, reason=str(error))
            self._audit.record_folded("join_failed", token_id, token=token_id, code=error.fault.code, text=str(error))
            what = CANNOT_SIGN if isinstance(error, SignerFailed) else CANNOT_KEEP
            raise EnrollmentRefused(f"{what}; {STILL_GOOD}", error.fault) from error
        self._renewals.forget(name)  # the new key has not asked for anything yet
        self._on_joined(name, IdentityRejected(f"{name} was joined anew"))
        self._audit.record("joined", agent=name, token=token_id, version=request.version, node=node or None)
        return tunnel_pb2.JoinResponse(
            chain_der=[signed.certificate_der],
            ca_pem=signed.ca_pem,
            agent_name=name,
            recovery_der=signed.recovery_der,
            cross_der=signed.cross_der,
        )

    async def renew(self, peer: Presented, request: tunnel_pb2.RenewRequest) -> tunnel_pb2.RenewResponse:
        """Trade a certificate for a fresh one of the same name, and of the same key unless another one is asked for.

        Raises:
            EnrollmentRefused: revoked, another key that was not asked for, a copied disk, a number that cannot be, or
                asked too often.
        """
        return await self._again("renewal", peer, request)

    async def recover(self, peer: Presented, request: tunnel_pb2.RenewRequest) -> tunnel_pb2.RenewResponse:
        """Trades a recovery certificate for an agent's certificate, of the same name and key.

        Raises:
            EnrollmentRefused: as `renew`, or the request does not say which renewal it is.
        """
        if not request.HasField("turn"):
            raise EnrollmentRefused("a recovery says which renewal it is", REQUEST_REFUSED)
        return await self._again("recovery", peer, request)

    # Internal

    async def _again(self, kind: str, peer: Presented, request: tunnel_pb2.RenewRequest) -> tunnel_pb2.RenewResponse:
        """Answers a renewal or a recovery.

        The certificate is made first, then what it changes is kept in one step, then it is handed out: of two that ask
        at the same time with the same number only one gets it.
        """
        name, peer_spki = peer.uri.rpartition("/")[2], peer.spki_sha256
        turn: Turn | None = None
        try:
            await self._agents.check(name, peer_spki)
            self._admit(name)
            turn = Turn.of(request)
            csr_spki = await self._signer.spki_sha256(request.csr_der)
            if csr_spki != peer_spki and (kind == "recovery" or not request.new_key):
                raise CsrRefused("the request is for another key; a new key needs a new join token")
            signed = await self._signer.sign(name, request.csr_der, peer.der)
            generation = await self._keep(name, _Given(signed, turn, peer_spki, csr_spki, kind == "recovery"))
        except (IdentityRejected, SessionRefused, CsrRefused, EnrollmentRefused) as refused:
            code, text = refused.fault.code, str(refused)
            self._audit.record_folded(f"{kind}_refused", name, agent=name, code=code, text=text)
            if isinstance(refused, (CopiedDisk, TooFarAhead)):
                await self._note_number(name, peer_spki, turn if isinstance(refused, TooFarAhead) else None)
            raise EnrollmentRefused(refused.text, refused.fault, _retry_after_s(refused)) from refused
        except (SignerFailed, StoreUnavailable) as error:
            _log.error(f"{kind} failed", code=error.fault.code, agent=name, reason=str(error))
            self._audit.record_folded(f"{kind}_failed", name, agent=name, code=error.fault.code, text=str(error))
            what = CANNOT_SIGN if isinstance(error, SignerFailed) else CANNOT_KEEP
            raise EnrollmentRefused(what, error.fault) from error
        self._audit.record("recovered" if kind == "recovery" else "renewed", agent=name, new_key=csr_spki != peer_spki)
        return tunnel_pb2.RenewResponse(
            chain_der=[signed.certificate_der],
            ca_pem=signed.ca_pem,
            recovery_der=signed.recovery_der,
            cross_der=signed.cross_der,
            generation=generation,
        )

    def _admit(self, name: str) -> None:
        """Refuses an agent that asks for certificates too often.

        Raises:
            EnrollmentRefused: with when it may ask again.
        """
        wait_s = self._renewals.take(name, asyncio.get_running_loop().time())
        if wait_s:
            text = f"{name} asks for certificates too often: once in {spoken_s(self._renewals.every_s)} is allowed"
            raise EnrollmentRefused(text, RENEWED_TOO_OFTEN, wait_s)

    async def _node(self, token: Good[JoinTokenRecord], shown: str) -> str:
        """Returns the node of a cluster that joins; empty when the token is for other boxes.

        Raises:
            NodeTokenRefused: the node did not show who it is.
            EnrollmentRefused: too many have tried, with when to try again.
        """
        if not token.value.kubernetes:
            return ""
        if wait_s := self._reviews.take(token.key, asyncio.get_running_loop().time()):
            raise EnrollmentRefused("too many nodes join at this moment", RENEWED_TOO_OFTEN, wait_s)
        return await self._nodes.node_of(shown)

    def _admit_join(self, token: Good[JoinTokenRecord], node: str) -> None:
        """Refuses a join token that is shown too often: each try costs the signing process a signature. Each node of a
        cluster is counted by itself.

        Raises:
            EnrollmentRefused: with when it may be shown again.
        """
        who = f"{token.key} {node}" if node else token.key
        wait_s = self._joins.take(who, asyncio.get_running_loop().time(), token.value.count)
        if wait_s:
            often = spoken_s(self._joins.every_s)
            text = f"the join token was tried too often: once in {often} is allowed, and it is still good"
            raise EnrollmentRefused(text, RENEWED_TOO_OFTEN, wait_s)

    def _check_free(self, token: JoinTokenRecord, name: str, node: str) -> None:
        """Makes sure that a token for several boxes gives no name that somebody has, or had: the boxes choose the
        names. A node of a cluster may have its own again, unless that was revoked.

        Raises:
            TokenRefused: it would.
        """
        if node:
            found = self._store.get(AGENTS, name)
            known = value_of(found)
            if found is not None and (known is None or known.node != node or known.revoked is not None):
                why = "was revoked" if known is not None and known.revoked is not None else "has joined in another way"
                text = f"{name} {why}: cloud-server agent forget {name} lets the node have the name"
                raise TokenRefused(text, NODE_TOKEN_REFUSED)
            return
        if "*" in token.agent and self._store.get(AGENTS, name) is not None:
            text = f"{name} is known already: choose another --name, or ask for a token for {name} alone"
            raise TokenRefused(text, JOIN_NAME_REFUSED)

    async def _take(self, token: Good[JoinTokenRecord], name: str, signed: Signed, node: str) -> None:
        """Uses the token, and gives the name to the key, in one step.

        Raises:
            TokenRefused: another box was faster.
        """
        several = "*" in token.value.agent
        while True:
            record = replace(_record(name, signed), labels=self._labels(token.value, name), node=node)
            before = self._store.get(AGENTS, name)
            expected = before.version if before is not None else 0
            new = Change(AGENTS, name, record, expected=expected if several else None)
            try:
                await self._store.commit(self._tokens.use(token, name), new)
            except Conflict as conflict:
                if not several:
                    raise TokenRefused(USED, TOKEN_USED) from conflict
                token = self._tokens.look(token.key)  # another box joined with it at the same moment
                self._check_free(token.value, name, node)
            else:
                return

    def _labels(self, token: JoinTokenRecord, name: str) -> Mapping[str, str]:
        """Returns the labels of a box: those that its name has already, and over them those that the token gives."""
        return {**self._agents.labels(name), **token.labels}

    async def _keep(self, name: str, given: _Given) -> int:
        """Writes what an agent is given to its record. Returns its generation, 0 for an agent that does not count.

        When that cannot be written, an agent that does not count and keeps its key gets its certificate all the same:
        the record only serves lists then.
        """
        generation = 0

        def changed(record: AgentRecord) -> AgentRecord:
            nonlocal generation
            after = given.to(record)
            generation = after.generation
            return after

        try:
            await self._agents.certified(name, given.peer_spki, changed)
        except StoreUnavailable as error:
            if given.turn is not None or given.csr_spki != given.peer_spki:
                raise
            text = "the end of an agent's certificate cannot be noted"
            _log.warning(text, code=error.fault.code, agent=name, reason=str(error))
        return generation

    async def _note_number(self, name: str, peer_spki: bytes, ahead: Turn | None) -> None:
        """For lists and events, once a minute: a copy was refused, or a turn that is too far ahead."""
        now = datetime.now(UTC)

        def noted(record: AgentRecord) -> AgentRecord:
            before = record.copied if ahead is None else record.ahead
            if before is not None and timedelta(0) <= now - before < TOLD_EVERY:
                return record
            return replace(record, copied=now) if ahead is None else _noted_ahead(record, ahead, now)

        with suppress(IdentityRejected, StoreUnavailable):  # it is refused all the same, and audited
            await self._agents.certified(name, peer_spki, noted)


@dataclass(frozen=True, slots=True)
class _Given:
    """What an agent is about to be given."""

    signed: Signed
    turn: Turn | None
    peer_spki: bytes
    csr_spki: bytes
    recovers: bool

    def to(self, record: AgentRecord) -> AgentRecord:
        """The record with it.

        Raises:
            CopiedDisk, TooFarAhead: it is not this box's turn.
        """
        now, key = datetime.now(UTC), self.peer_spki.hex()
        if self.turn is None:
            check_uncounted(record)
        else:
            again = self.turn.repeats(record)
            if self.turn.lead(record):
                record = _noted_ahead(record, self.turn, now)
            record = replace(record, generation=self.turn.taken(record), nonce=self.turn.nonce)
            if self.recovers and not again:
                record = replace(record, recoveries=record.recoveries + 1, recovered=now)
        if key == record.next_spki_sha256:  # it is used, and so the name's from here on
            record = replace(record, spki_sha256=key, rotated=now)
        return replace(
            record,
            validity=read_certificate(self.signed.certificate_der).validity,
            authority=self.signed.authorities[0],
            trusts=self.signed.authorities,
            taken=False,
            next_spki_sha256=self.csr_spki.hex() if self.csr_spki != self.peer_spki else "",
        )


def _token_id(uri: str) -> str:
    return uri.rpartition("/")[2]


def _retry_after_s(refused: FaultError | TunnelError) -> float:
    return refused.retry_after_s if isinstance(refused, EnrollmentRefused) else 0.0


def _noted_ahead(record: AgentRecord, turn: Turn, now: datetime) -> AgentRecord:
    return replace(record, ahead=now, lead=turn.lead(record))


def _record(name: str, signed: Signed) -> AgentRecord:
    certificate = read_certificate(signed.certificate_der)
    return AgentRecord(
        name=name,
        joined=datetime.now(UTC),
        spki_sha256=hashlib.sha256(certificate.spki_der).hexdigest(),
        validity=certificate.validity,
        authority=signed.authorities[0],
        trusts=signed.authorities,
    )
