"""A server's tunnel side in this process: carriers, identities, registry and sessions, over real gRPC and TLS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cloud_server.agents.agents import Agents
from cloud_server.agents.directory import MemoryDirectory
from cloud_server.agents.sessions import AgentSessions
from cloud_server.trust.agents import JoinedAgents
from cloud_server.trust.sqlite_store import SqliteStore
from cloud_server.trust.state import open_state
from protos import tunnel_pb2
from tests.support.carriers import DIRECT, Cloud, cloud
from tests.support.pki import Issued
from tunnel.aio.carriers.carrier import Carrier
from tunnel.aio.process.clock import MONOTONIC
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sessions.incoming import Acceptor, IncomingStream
from tunnel.aio.sessions.session import TunnelSession
from tunnel.core.path.probes import PingBudget
from tunnel.core.session import Session
from tunnel.core.streams.budget import Budget
from tunnel.core.wire.errors import Code, SessionLost
from tunnel.core.wire.handshake import Welcome, decode_answer, encode_hello
from tunnel.core.wire.limits import MIB, SESSION_ID_BYTES, Limits, Timing

BOX = "box-7"
"""The name in the certificate that boxes of `Cloud` show unless told otherwise."""


@dataclass(kw_only=True)
class SessionServer:
    """What `session_server()` made. A name belongs to the first key that comes with it."""

    cloud: Cloud
    state: Path
    store: SqliteStore
    registry: Agents
    directory: MemoryDirectory
    sessions: AgentSessions

    @property
    def address(self) -> str:
        return self.cloud.address

    def session(self, name: str = BOX) -> TunnelSession:
        """The session of an agent that must have one."""
        session = self.directory.session(name)
        assert session is not None, f"{name} has no session"
        return session

    def connected(self, name: str = BOX) -> bool:
        """Whether an agent has a link."""
        session = self.directory.session(name)
        return session is not None and session.attached

    def cut(self) -> None:
        """Cut the links of all boxes."""
        for carrier in tuple(self.cloud.server._carriers):
            carrier.close()

    async def revoke(self, name: str) -> None:
        """What the command does, beside this server."""
        other = await asyncio.to_thread(open_state, self.state)
        try:
            assert await JoinedAgents(other, pins_unknown=True).revoke(name)
        finally:
            await other.aclose()


@contextlib.asynccontextmanager
async def session_server(
    state: Path, *, timing: Timing | None = None, listen: str = "127.0.0.1:0"
) -> AsyncIterator[SessionServer]:
    """A server that is stopped at the end, as `kill -9` would: nobody is told."""
    await asyncio.to_thread(state.mkdir, parents=True, exist_ok=True)
    store = await asyncio.to_thread(open_state, state)
    joined = JoinedAgents(store, pins_unknown=True)
    directory = MemoryDirectory()
    registry = Agents(joined, directory)
    joined.when_lost(registry.removed)
    following = TaskOwner("store")
    following.spawn("follow", store.follow())
    sessions = AgentSessions(
        registry,
        directory,
        joined,
        version="1",
        limits=Limits(),
        timing=timing or Timing(),
        process_budget=Budget(total_bytes=64 * MIB),
        ping_budget=PingBudget(pings_per_s=150),
        acceptor=lambda _name: refuse,
        turned_down=lambda _name, _event: None,
    )
    async with cloud(sessions.on_carrier, listen=[listen]) as made:
        try:
            yield SessionServer(
                cloud=made, state=state, store=store, registry=registry, directory=directory, sessions=sessions
            )
        finally:
            for session in directory.sessions():
                await session.aclose()
            await following.aclose()
            await store.aclose()


async def refuse(incoming: IncomingStream) -> None:
    """Answers every stream that a box opens."""
    incoming.refuse(Code.NOT_ALLOWED, "nothing is exposed here")


async def echo(incoming: IncomingStream) -> None:
    """Answers every stream, and sends back what comes."""
    stream = incoming.accept("127.0.0.1:7")
    while data := await stream.read():
        await stream.write(data)
    await stream.aclose()


class RawBox:
    """An agent's side by hand: each step of it when the test says so. Use as a context manager."""

    def __init__(
        self, server: SessionServer, *, issued: Issued | None = None, instance: bytes = b"i", acceptor: Acceptor = echo
    ) -> None:
        self._server = server
        self._issued = issued
        self._instance = (instance * SESSION_ID_BYTES)[:SESSION_ID_BYTES]
        self._acceptor = acceptor
        self._runs = TaskOwner("box")
        self.carriers: list[Carrier] = []
        self.session: TunnelSession | None = None
        self.went_away: list[tuple[Code, float]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        if self.session is not None:
            await self.session.aclose()
        for carrier in self.carriers:
            carrier.close()
        await self._runs.aclose()

    async def dial(self) -> Carrier:
        """A carrier on which nothing was said."""
        carrier = await self._server.cloud.dial(self._issued, DIRECT)
        self.carriers.append(carrier)
        return carrier

    def hello(self, *, resume: bytes | None = None, protocol: int | None = None) -> bytes:
        """What this box says first. `resume` None: go on with the session that it has, if any."""
        session = self.session
        known = session.core.session_id if session is not None and not session.closed.done() else b""
        message = encode_hello(
            version="1",
            instance_id=self._instance,
            node=tunnel_pb2.Node(),
            limits=Limits(),
            resume_session_id=known if resume is None else resume,
            last_received=session.core.last_received if session is not None and known else 0,
        )
        if protocol is None:
            return message
        envelope = tunnel_pb2.Envelope.FromString(message)
        envelope.hello.protocol_min = envelope.hello.protocol_max = protocol
        return envelope.SerializeToString()

    async def greet(self, hello: bytes | None = None) -> tuple[Carrier, Welcome]:
        """Dial, say Hello, and read the answer.

        Raises:
            SessionRefused: the server's words.
        """
        carrier = await self.dial()
        await carrier.write(hello or self.hello())
        answer = await carrier.read()
        assert answer is not None, "the server left without an answer"
        return carrier, decode_answer(answer)

    async def connect(self, hello: bytes | None = None) -> Welcome:
        """Dial, greet, and carry: the session goes on, or a new one takes its place."""
        carrier, welcome = await self.greet(hello)
        if not welcome.resumed or self.session is None:
            if self.session is not None:
                self.session.close(SessionLost("not resumed"))
            self.session = TunnelSession(
                Session(
                    session_id=welcome.session_id,
                    dialler=True,
                    now=MONOTONIC(),
                    timing=welcome.timing,
                ),
                self._acceptor,
                "server",
                on_going_away=lambda _session, event: self.went_away.append((event.code, event.reconnect_after_s)),
                clock=MONOTONIC,
            )
        self._runs.spawn("run", self._run(self.session, carrier, welcome))
        return welcome

    async def _run(self, session: TunnelSession, carrier: Carrier, welcome: Welcome) -> None:
        await session.run_carrier(carrier, welcome.last_received if welcome.resumed else 0)
