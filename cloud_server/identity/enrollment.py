"""Join and Renew: who gets an agent's certificate. Every decision is an audit record."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.identity.agents import AgentStore, IdentityRejected
from cloud_server.identity.ca import CertificateAuthority, PublicKey
from cloud_server.identity.tokens import TokenRefused, TokenStore
from protos import tunnel_pb2
from tunnel.aio.carriers.carrier_errors import EnrollmentRefused
from tunnel.aio.identity.peer_identity import spki_sha256
from tunnel.core.errors import TunnelError

_log = structlog.get_logger("audit")

CURVES = (ec.SECP256R1, ec.SECP384R1)


class Enrollment:
    """Answers both calls; see `tunnel.aio.carriers.enrollment.EnrollmentHandler`."""

    def __init__(
        self,
        authority: CertificateAuthority,
        tokens: TokenStore,
        agents: AgentStore,
        on_joined: Callable[[str, TunnelError], None],
    ) -> None:
        """`on_joined` ends what an earlier key of the name still holds; called before the new key has a certificate."""
        self._authority = authority
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
            public_key = _key_of(request.csr_der)
            name = await asyncio.to_thread(self._tokens.use, token_id)
            await asyncio.to_thread(self._agents.record, name, spki_sha256(public_key))
        except (TokenRefused, _CsrRefused) as refused:
            _log.warning("join refused", token=token_id, reason=str(refused))
            raise EnrollmentRefused(str(refused)) from refused
        except OSError as error:
            _log.error("join failed", token=token_id, reason=str(error))
            raise EnrollmentRefused("the server cannot write its state folder; its log says more") from error
        self._on_joined(name, IdentityRejected(f"{name} was joined anew"))
        certificate = self._authority.issue_agent(name, public_key)
        _log.info("joined", agent=name, token=token_id, version=request.version)
        return tunnel_pb2.JoinResponse(chain_der=[_der(certificate)], ca_pem=self._authority.pem, agent_name=name)

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
            public_key = _key_of(request.csr_der)
            if spki_sha256(public_key) != peer_spki:
                raise _CsrRefused("the request is for another key; a new key needs a new join token")
        except (IdentityRejected, _CsrRefused) as refused:
            _log.warning("renewal refused", agent=name, reason=str(refused))
            raise EnrollmentRefused(str(refused)) from refused
        certificate = self._authority.issue_agent(name, public_key)
        _log.info("renewed", agent=name)
        return tunnel_pb2.RenewResponse(chain_der=[_der(certificate)], ca_pem=self._authority.pem)


class _CsrRefused(Exception):
    """The request is not one that we sign."""


def _key_of(csr_der: bytes) -> PublicKey:
    try:
        request = x509.load_der_x509_csr(csr_der)
        key = request.public_key()
        signed = request.is_signature_valid
    except (ValueError, InvalidSignature) as error:
        raise _CsrRefused("the certificate request cannot be read") from error
    if not signed:
        raise _CsrRefused("the certificate request is not signed by its key")
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, CURVES):
        raise _CsrRefused("the key must be of curve P-256 or P-384")
    return key


def _der(certificate_pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(certificate_pem).public_bytes(serialization.Encoding.DER)
