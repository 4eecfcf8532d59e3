"""Decides who gets an agent's certificate, by Join or Renew. Every decision is an audit record; what fails here is
logged too.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from cloud_server.trust.agents import IdentityRejected, JoinedAgents
from cloud_server.trust.records import AGENTS, AgentRecord
from cloud_server.trust.signer import CsrRefused, Signed, Signer, SignerFailed
from cloud_server.trust.store import Change, Conflict, Store, StoreUnavailable
from cloud_server.trust.tokens import USED, JoinTokens, TokenRefused, TokenUnreadable
from protos import tunnel_pb2
from tunnel.aio.carriers.carrier_errors import EnrollmentRefused
from tunnel.aio.identity.certificate import read_certificate
from tunnel.aio.operate.audit import Audit
from tunnel.core.path.rate import TokenBuckets
from tunnel.core.wire.errors import SessionRefused, TunnelError
from tunnel.core.wire.faults import RENEWED_TOO_OFTEN, TOKEN_USED
from tunnel.core.wire.spoken import spoken_s

_log = structlog.get_logger("cloud.enrollment")

CANNOT_SIGN = "the server cannot sign certificates; its log says more"
CANNOT_KEEP = "the server cannot write its state folder; its log says more"
STILL_GOOD = "the token is still good"
RENEWALS_PER_S = 1 / 30
RENEWALS_BURST = 10
"""Of one agent. It renews every few days, and tries again once a minute where that fails; each costs the signing
process a signature, and the audit log a record."""


class Enrollment:
    """The handler of both calls; see `tunnel.aio.carriers.enrollment.EnrollmentHandler`."""

    def __init__(
        self,
        signer: Signer,
        store: Store,
        agents: JoinedAgents,
        on_joined: Callable[[str, TunnelError], None],
        audit: Audit,
    ) -> None:
        """Decides by the records of `store`, and has certificates signed by `signer`. `on_joined` ends what an earlier
        key of the name still holds; it is called before the new key has a certificate.
        """
        self._signer = signer
        self._store = store
        self._tokens = JoinTokens(store)
        self._agents = agents
        self._on_joined = on_joined
        self._audit = audit
        self._renewals = TokenBuckets(RENEWALS_PER_S, RENEWALS_BURST)

    async def join(self, peer_spiffe: str, request: tunnel_pb2.JoinRequest) -> tunnel_pb2.JoinResponse:
        """Trades a token for a certificate; a token for a name that is taken gives the name to the new key.

        The certificate is made first; then the token is used up and the name given to the key in one step, of which
        there is one for a token; then the certificate is handed out. So whatever fails before the answer costs no
        token, and of two boxes that come with one token only that one gets a certificate whose key has the name.

        Raises:
            EnrollmentRefused: the text tells the box's owner what to do.
        """
        token_id = peer_spiffe.rpartition("/")[2]
        try:
            token = self._tokens.look(token_id)
            name = token.value.agent
            signed = await self._signer.sign(name, request.csr_der)
            await self._store.commit(self._tokens.use(token), Change(AGENTS, name, _record(name, signed)))
        except (TokenRefused, CsrRefused, Conflict) as caught:
            refused = TokenRefused(USED, TOKEN_USED) if isinstance(caught, Conflict) else caught
            code, text = refused.fault.code, str(refused)
            # Whoever has any token of ours, used or not, may ask as often as they like.
            self._audit.record_folded("join_refused", token_id, token=token_id, code=code, text=text)
            raise EnrollmentRefused(refused.text, refused.fault) from caught
        except (SignerFailed, StoreUnavailable, TokenUnreadable) as error:
            _log.error("join failed", code=error.fault.code, token=token_id, reason=str(error))
            self._audit.record_folded("join_failed", token_id, token=token_id, code=error.fault.code, text=str(error))
            what = CANNOT_SIGN if isinstance(error, SignerFailed) else CANNOT_KEEP
            raise EnrollmentRefused(f"{what}; {STILL_GOOD}", error.fault) from error
        self._renewals.forget(name)  # the new key has not asked for anything yet
        self._on_joined(name, IdentityRejected(f"{name} was joined anew"))
        self._audit.record("joined", agent=name, token=token_id, version=request.version)
        return tunnel_pb2.JoinResponse(chain_der=[signed.certificate_der], ca_pem=signed.ca_pem, agent_name=name)

    async def renew(
        self, peer_spiffe: str, peer_spki: bytes, request: tunnel_pb2.RenewRequest
    ) -> tunnel_pb2.RenewResponse:
        """Trade a certificate for a fresh one of the same name and key.

        Raises:
            EnrollmentRefused: revoked, another key, or for now, because it asks too often.
        """
        name = peer_spiffe.rpartition("/")[2]
        try:
            await self._agents.check(name, peer_spki)
            self._admit(name)
            if await self._signer.spki_sha256(request.csr_der) != peer_spki:
                raise CsrRefused("the request is for another key; a new key needs a new join token")
            signed = await self._signer.sign(name, request.csr_der)
        except (IdentityRejected, SessionRefused, CsrRefused, EnrollmentRefused) as refused:
            code, text = refused.fault.code, str(refused)
            self._audit.record_folded("renewal_refused", name, agent=name, code=code, text=text)
            if isinstance(refused, EnrollmentRefused):
                raise
            raise EnrollmentRefused(refused.text, refused.fault) from refused
        except SignerFailed as error:
            _log.error("renewal failed", code=error.fault.code, agent=name, reason=str(error))
            self._audit.record_folded("renewal_failed", name, agent=name, code=error.fault.code, text=str(error))
            raise EnrollmentRefused(CANNOT_SIGN, error.fault) from error
        await self._note(name, signed)
        self._audit.record("renewed", agent=name)
        return tunnel_pb2.RenewResponse(chain_der=[signed.certificate_der], ca_pem=signed.ca_pem)

    # Internal

    def _admit(self, name: str) -> None:
        """Refuses an agent that asks for certificates too often.

        Raises:
            EnrollmentRefused: with when it may ask again.
        """
        wait_s = self._renewals.take(name, asyncio.get_running_loop().time())
        if wait_s:
            text = f"{name} asks for certificates too often: once in {spoken_s(1 / RENEWALS_PER_S)} is allowed"
            raise EnrollmentRefused(text, RENEWED_TOO_OFTEN, wait_s)

    async def _note(self, name: str, signed: Signed) -> None:
        """Stores how long an agent's new certificate is valid, for `agent list` and the figures. When that fails, it is
        logged: an agent that has its certificate is none the worse without.
        """
        try:
            await self._agents.certified(name, read_certificate(signed.certificate_der).validity)
        except StoreUnavailable as error:
            text = "the end of an agent's certificate cannot be noted"
            _log.warning(text, code=error.fault.code, agent=name, reason=str(error))


def _record(name: str, signed: Signed) -> AgentRecord:
    certificate = read_certificate(signed.certificate_der)
    return AgentRecord(
        name=name,
        joined=datetime.now(UTC),
        spki_sha256=hashlib.sha256(certificate.spki_der).hexdigest(),
        validity=certificate.validity,
    )
