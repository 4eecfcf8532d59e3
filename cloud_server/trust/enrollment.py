"""Join and Renew: who gets an agent's certificate. Every decision is an audit record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from cloud_server.trust.agents import AgentStore, IdentityRejected
from cloud_server.trust.signer import CsrRefused, Signed, Signer, SignerFailed
from cloud_server.trust.tokens import TokenRefused, TokenStore
from protos import tunnel_pb2
from tunnel.aio.carriers.carrier_errors import EnrollmentRefused
from tunnel.aio.identity.certificate import read_certificate
from tunnel.core.wire.errors import TunnelError
from tunnel.core.wire.faults import STATE_NOT_WRITABLE, fault_of

_log = structlog.get_logger("audit")

CANNOT_SIGN = "the server cannot sign certificates; its log says more"


class Enrollment:
    """Answers both calls; see `tunnel.aio.carriers.enrollment.EnrollmentHandler`."""

    def __init__(
        self,
        signer: Signer,
        tokens: TokenStore,
        agents: AgentStore,
        on_joined: Callable[[str, TunnelError], None],
    ) -> None:
        """`on_joined` ends what an earlier key of the name still holds; called before the new key has a certificate."""
        self._signer = signer
        self._tokens = tokens
        self._agents = agents
        self._on_joined = on_joined

    async def join(self, peer_spiffe: str, request: tunnel_pb2.JoinRequest) -> tunnel_pb2.JoinResponse:
        """Trade a token for a certificate; a token for a name that is taken gives the name to the new key.

        Raises:
            EnrollmentRefused: the text tells the box's owner what to do.
        """
        token_id = peer_spiffe.rpartition("/")[2]
        try:
            spki_sha256 = await self._signer.spki_sha256(request.csr_der)
            name = await asyncio.to_thread(self._tokens.use, token_id)
            await asyncio.to_thread(self._agents.record, name, spki_sha256)
        except (TokenRefused, CsrRefused) as refused:
            _log.warning("join refused", code=refused.fault.code, token=token_id, reason=str(refused))
            raise EnrollmentRefused(refused.text, refused.fault) from refused
        except SignerFailed as error:
            _log.error("join failed", code=fault_of(error).code, token=token_id, reason=str(error))
            raise EnrollmentRefused(CANNOT_SIGN, error.fault) from error
        except OSError as error:
            _log.error("join failed", code=fault_of(error).code, token=token_id, reason=str(error))
            raise EnrollmentRefused(
                "the server cannot write its state folder; its log says more", STATE_NOT_WRITABLE
            ) from error
        self._on_joined(name, IdentityRejected(f"{name} was joined anew"))
        try:
            signed = await self._signer.sign(name, request.csr_der)
        except SignerFailed as error:
            _log.error("join failed", code=fault_of(error).code, agent=name, token=token_id, reason=str(error))
            raise EnrollmentRefused(f"{CANNOT_SIGN}; the token is used up, make another then", error.fault) from error
        await self._note(name, signed)
        _log.info("joined", agent=name, token=token_id, version=request.version)
        return tunnel_pb2.JoinResponse(chain_der=[signed.certificate_der], ca_pem=signed.ca_pem, agent_name=name)

    async def renew(
        self, peer_spiffe: str, peer_spki: bytes, request: tunnel_pb2.RenewRequest
    ) -> tunnel_pb2.RenewResponse:
        """Trade a certificate for a fresh one of the same name and key.

        Raises:
            EnrollmentRefused: revoked, or another key.
        """
        name = peer_spiffe.rpartition("/")[2]
        try:
            await self._agents.check(name, peer_spki)
            if await self._signer.spki_sha256(request.csr_der) != peer_spki:
                raise CsrRefused("the request is for another key; a new key needs a new join token")
            signed = await self._signer.sign(name, request.csr_der)
        except (IdentityRejected, CsrRefused) as refused:
            _log.warning("renewal refused", code=refused.fault.code, agent=name, reason=str(refused))
            raise EnrollmentRefused(refused.text, refused.fault) from refused
        except SignerFailed as error:
            _log.error("renewal failed", code=fault_of(error).code, agent=name, reason=str(error))
            raise EnrollmentRefused(CANNOT_SIGN, error.fault) from error
        await self._note(name, signed)
        _log.info("renewed", agent=name)
        return tunnel_pb2.RenewResponse(chain_der=[signed.certificate_der], ca_pem=signed.ca_pem)

    # Internal

    async def _note(self, name: str, signed: Signed) -> None:
        """For `agent list` and the figures: an agent that has its certificate is none the worse without."""
        try:
            await asyncio.to_thread(self._agents.certified, name, read_certificate(signed.certificate_der).validity)
        except OSError as error:
            _log.warning(
                "the end of an agent's certificate cannot be noted",
                code=STATE_NOT_WRITABLE.code,
                agent=name,
                reason=str(error),
            )
