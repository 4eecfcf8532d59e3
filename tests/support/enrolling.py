"""A state folder as `cloud-server init` makes it, and a server on it that boxes can join at: real gRPC, real TLS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import grpc.aio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.kubernetes.access import ClusterUnavailable, Reviewed
from cloud_server.trust.agents import JoinedAgents
from cloud_server.trust.ca import CertificateAuthority
from cloud_server.trust.enrollment import Enrollment
from cloud_server.trust.node_tokens import NodeTokens
from cloud_server.trust.signer import JoinCredential, Signer
from cloud_server.trust.sqlite_store import SqliteStore
from cloud_server.trust.state import open_state
from cloud_server.trust.tokens import JoinTokens
from edge_agent.identity.certificates import load_key
from edge_agent.identity.identity import Identity
from tests.support.carriers import DIRECT, echo
from tests.support.doors import Records
from tunnel.aio.carriers.carrier_server import CarrierServer
from tunnel.aio.carriers.channel import open_channel, release
from tunnel.aio.carriers.methods import JOIN
from tunnel.aio.identity.join_token import JoinToken
from tunnel.aio.identity.tls_material import ClientTls, ServerTls
from tunnel.aio.process.config import ServerAddress
from tunnel.aio.process.files import write_together
from tunnel.core.wire.errors import TunnelError

HOUR = timedelta(hours=1)


def public_key_of(identity: Identity) -> ec.EllipticCurvePublicKey:
    """Of a box that joined. Blocking."""
    key = serialization.load_pem_private_key(load_key(identity.key_path), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key.public_key()


async def _no_cluster(_token: str, _audience: str) -> Reviewed:
    raise ClusterUnavailable("there is none")


class Issuer:
    """What the signing process does for tokens, in this process: it takes its time to start."""

    def __init__(self, authority: CertificateAuthority) -> None:
        self._authority = authority

    async def join_credential(self, token_id: str, life: timedelta, agent: str) -> JoinCredential:
        issued = self._authority.issue_join(token_id, life, agent)
        return JoinCredential(issued.certificate_pem, issued.key_pem, self._authority.pem)


@dataclass(kw_only=True)
class Office:
    """Where boxes join."""

    state: Path
    authority: CertificateAuthority
    store: SqliteStore
    agents: JoinedAgents
    tokens: JoinTokens
    ended: list[tuple[str, TunnelError]] = field(default_factory=list)
    """Names whose earlier sessions had to end."""
    audit: Records = field(default_factory=Records)
    server: CarrierServer | None = None
    nodes: NodeTokens = field(default_factory=lambda: NodeTokens(_no_cluster))
    """What is believed of nodes of a cluster."""

    def enrollment(self, signer: Signer) -> Enrollment:
        ended = self.ended
        return Enrollment(
            signer, self.store, self.agents, lambda name, error: ended.append((name, error)), self.audit, self.nodes
        )

    @property
    def address(self) -> ServerAddress:
        assert self.server is not None
        return ServerAddress(f"127.0.0.1:{self.server.ports[0]}")

    async def token(self, agent: str = "box-7", life: timedelta = HOUR) -> JoinToken:
        return await self.tokens.create(Issuer(self.authority), agent, life)


def office(state: Path) -> Office:
    """A fresh state folder without a server; close its store."""
    state.mkdir(exist_ok=True)
    authority = CertificateAuthority.create("longline")
    write_together(authority.files(state))
    store = open_state(state)
    agents = JoinedAgents(store, pins_unknown=False)
    return Office(state=state, authority=authority, store=store, agents=agents, tokens=JoinTokens(store))


@contextlib.asynccontextmanager
async def unfinished_joins(
    address: ServerAddress, token: JoinToken, count: int
) -> AsyncIterator[list[grpc.aio.StreamUnaryCall[bytes, bytes]]]:
    """Calls of Join that never send their message."""
    tls = ClientTls(certificate=token.certificate_pem, key=token.key_pem, ca=token.ca_pem)
    # Each over its own connection, as boxes come: one connection takes two calls.
    channels = [await open_channel(address, tls, DIRECT) for _ in range(count)]
    try:
        yield [channel.stream_unary(JOIN)() for channel in channels]
    finally:
        for channel in channels:
            release(channel)


@contextlib.asynccontextmanager
async def open_office(state: Path, nodes: NodeTokens | None = None) -> AsyncIterator[Office]:
    """With a server, which is stopped at the end. `nodes` tells who nodes of a cluster are; None: there is none."""
    made = await asyncio.to_thread(office, state)
    made.nodes = nodes or made.nodes
    issued = made.authority.issue_server([])
    tls = ServerTls(certificate=issued.certificate_pem, key=issued.key_pem, client_ca=made.authority.pem)
    signer = Signer(state, "longline")
    made.server = CarrierServer(["127.0.0.1:0"], tls, echo, made.enrollment(signer))
    await made.server.start()
    try:
        yield made
    finally:
        await made.server.stop(1.0)
        await signer.aclose()
        await made.store.aclose()
