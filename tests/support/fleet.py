"""A fleet front end on real TLS with agents that need no tunnel: a fake registry, and a kubelet behind each stream."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from cloud_server.agents.agents import AgentView, Change
from cloud_server.agents.feed import FollowerTooSlow
from cloud_server.frontends.fleet.server import FleetServer
from cloud_server.opens.live import LiveOpen
from cloud_server.opens.policy import DoorPolicy
from protos import tunnel_pb2
from tests.support.doors import Doors, who
from tests.support.joined import Pair, joined
from tests.support.pki import Authority
from tests.support.policies import everybody_may_all
from tunnel.aio.http.server import ALPN_PROTOCOLS
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sessions.incoming import Acceptor, IncomingStream
from tunnel.aio.sessions.stream import Stream
from tunnel.aio.sockets.duplex import Duplex
from tunnel.aio.sockets.listener import Listener
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.names import KUBELET
from tunnel.core.wire.target import ServiceTarget

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TOKEN = "s3cret-token"

Kubelet = Callable[[Duplex], Awaitable[None]]


def box(name: str, *, connected: bool = True, **changes: Any) -> AgentView:
    """An agent that joined long ago."""
    known = AgentView(
        name=name,
        joined=START,
        connected=connected,
        since=START,
        last_seen=START,
        node=box_node(),
        version="0.1.0",
        address="198.51.100.7:40001",
    )
    return replace(known, **changes)


def box_node(**labels: str) -> tunnel_pb2.Node:
    """What a box says of itself."""
    return tunnel_pb2.Node(
        hostname="raspberry",
        os_image="Debian GNU/Linux 13 (trixie)",
        kernel="6.12.9",
        architecture="aarch64",
        addresses=["10.1.0.9", "fd00::9"],
        labels=labels,
        services=[KUBELET],
        cpus=4,
        memory_bytes=8 * 1024**3,
    )


class FakeRegistry:
    """A registry that tests change by hand."""

    def __init__(self, *agents: AgentView) -> None:
        self._agents = {agent.name: agent for agent in agents}
        self._queues: set[asyncio.Queue[tuple[Change, AgentView] | None]] = set()

    def names(self) -> Sequence[str]:
        return list(self._agents)

    def agent(self, name: str) -> AgentView | None:
        return self._agents.get(name)

    async def subscribe(self) -> AsyncIterator[tuple[Change, AgentView]]:
        queue: asyncio.Queue[tuple[Change, AgentView] | None] = asyncio.Queue()
        self._queues.add(queue)
        try:
            while (change := await queue.get()) is not None:
                yield change
            raise FollowerTooSlow
        finally:
            self._queues.discard(queue)

    def __getitem__(self, name: str) -> AgentView:
        return self._agents[name]

    def put(self, agent: AgentView) -> None:
        self._agents[agent.name] = agent
        self._tell(Change.CONNECTED if agent.connected else Change.AWAY, agent)

    def change(self, name: str, **changes: Any) -> None:
        self.put(replace(self._agents[name], **changes))

    def lose(self, agent: AgentView) -> None:
        """A change that subscribers are too slow for: they learn that they missed something, and not what."""
        self._agents[agent.name] = agent
        for queue in self._queues:
            queue.put_nowait(None)

    def remove(self, name: str) -> None:
        self._tell(Change.REMOVED, self._agents.pop(name))

    def _tell(self, change: Change, agent: AgentView) -> None:
        for queue in self._queues:
            queue.put_nowait((change, agent))


@dataclass
class FakeOpener:
    """Opens streams over real sessions, to agents that the registry says are there."""

    registry: FakeRegistry
    pairs: dict[str, Pair] = field(default_factory=dict)
    opened: list[tuple[str, str, str]] = field(default_factory=list)
    """Agent, target and principal of each stream."""

    async def open(self, live: LiveOpen) -> Stream:
        """The last behind the door."""
        request, (live.agent, live.target) = live.request, live.permitted[0].route
        self.opened.append((live.agent, str(live.target), request.caller.name))
        if not self.registry[live.agent].connected:
            raise OpenRefused(f"agent {live.agent} is away", Code.AGENT_AWAY)
        pair = self.pairs.get(live.agent)
        if pair is None:
            raise OpenRefused("", Code.NO_SERVICE)
        return await pair.server.open(
            live.target, deadline_s=request.deadline_s, principal=request.caller.principal, trace_id=request.trace_id
        )


@dataclass
class Fleet:
    """A running front end."""

    registry: FakeRegistry
    opener: FakeOpener
    doors: Doors
    server: FleetServer
    port: int
    kubeconfig: Path
    stranger_kubeconfig: Path
    token_kubeconfig: Path
    ca_pem: bytes

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"


@asynccontextmanager
async def running_fleet(
    folder: Path, registry: FakeRegistry, kubelets: dict[str, Kubelet], policy: DoorPolicy | None = None
) -> AsyncIterator[Fleet]:
    """Serve the registry's agents on a free port of 127.0.0.1 until the block ends.

    `policy`: None lets everybody do all.
    """
    authority = Authority()
    server_side = authority.issue(hosts=["127.0.0.1"]).write(folder, "server")
    client = authority.issue(uris=["spiffe://longline/user/ann"])
    (folder / "ca.crt").write_bytes(authority.pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(folder / "ca.crt"))
    context.load_cert_chain(*server_side)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.set_alpn_protocols(list(ALPN_PROTOCOLS))
    opener = FakeOpener(registry)
    policy = everybody_may_all() if policy is None else policy
    doors = Doors(opener, policy=policy)
    fleet = FleetServer(registry, doors.door, policy, who({TOKEN: "robot"}), doors.logins, doors.records)
    tasks = TaskOwner("fleet")
    listener = Listener("fleet", fleet.handle)

    async with contextlib.AsyncExitStack() as stack:
        for name, kubelet in kubelets.items():
            opener.pairs[name] = await stack.enter_async_context(joined(acceptor(kubelet)))
        stack.push_async_callback(tasks.aclose)
        _ = tasks.spawn("mirror", fleet.run())
        stack.push_async_callback(listener.aclose)
        await listener.listen_tcp("127.0.0.1:0", context)
        (port,) = listener.ports
        user = {
            "client-certificate-data": _b64(client.certificate_pem),
            "client-key-data": _b64(client.key_pem),
        }
        yield Fleet(
            registry,
            opener,
            doors,
            fleet,
            port,
            _kubeconfig(folder / "admin.kubeconfig", port, authority.pem, user),
            _kubeconfig(folder / "stranger.kubeconfig", port, authority.pem, {"token": "guessed"}),
            _kubeconfig(folder / "token.kubeconfig", port, authority.pem, {"token": TOKEN}),
            authority.pem,
        )


def acceptor(kubelet: Kubelet) -> Acceptor:
    """The agent's side of a session that offers nothing but a kubelet."""

    async def accept(incoming: IncomingStream) -> None:
        if incoming.target == ServiceTarget(KUBELET):
            await kubelet(incoming.accept())
        else:
            incoming.refuse(Code.NO_SERVICE, "only a kubelet is here")

    return accept


def _kubeconfig(path: Path, port: int, ca_pem: bytes, user: dict[str, str]) -> Path:
    cluster = {"server": f"https://127.0.0.1:{port}", "certificate-authority-data": _b64(ca_pem)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "fleet", "cluster": cluster}],
        "users": [{"name": "me", "user": user}],
        "contexts": [{"name": "fleet", "context": {"cluster": "fleet", "user": "me"}}],
        "current-context": "fleet",
    }
    path.write_text(yaml.safe_dump(config))
    return path


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def pod_list(name: str, *containers: str) -> bytes:
    """A kubelet's `/pods` with one pod."""
    return json.dumps(
        {
            "kind": "PodList",
            "apiVersion": "v1",
            "metadata": {},
            "items": [
                {
                    "metadata": {
                        "name": name,
                        "namespace": "default",
                        "uid": f"uid-of-{name}",
                        "creationTimestamp": "2026-01-02T03:04:05Z",
                        "annotations": {"kubectl.kubernetes.io/default-container": containers[0]},
                    },
                    "spec": {"containers": [{"name": each, "image": "host"} for each in containers]},
                    "status": {
                        "phase": "Running",
                        "podIP": "10.1.0.9",
                        "conditions": [{"type": "Ready", "status": "True"}],
                        "containerStatuses": [
                            {
                                "name": each,
                                "ready": True,
                                "restartCount": 0,
                                "image": "host",
                                "imageID": "",
                                "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}},
                            }
                            for each in containers
                        ],
                    },
                }
            ],
        }
    ).encode()
