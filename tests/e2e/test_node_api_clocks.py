"""The proxy of a node whose clock is wrong, so that its certificate is over: an agent's process, without the cloud."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.edge_agent.autonomy.answering.test_callers import DNS, PROXY, SERVICES, token
from tests.edge_agent.autonomy.proxied import Front
from tests.support.agent_status import status_of
from tests.support.cgroup2 import needs_cgroup, own_cgroup
from tests.support.clock import clock_in, needs_faketime
from tests.support.cluster import Box, Cluster, cluster
from tests.support.ports import free_ports
from tests.support.waits import eventually

pytestmark = [pytest.mark.e2e, needs_faketime, needs_cgroup]
PODS = "/api/v1/pods?resourceVersion=0"
TOKEN = "/api/v1/namespaces/ns/serviceaccounts/default/token"
JSON = [("content-type", "application/json")]
USER = [("authorization", f"Bearer {token(PROXY)}")]
OVER = "2020-01-01T00:00:00Z"
"""When the pod's token is over, which is long ago."""


class Clocked(Front):
    """A proxy in an agent's process, whose clock goes by a file."""

    box: Box
    clock: Path

    async def begin(self, made: Cluster) -> None:
        await self.start_kube()
        (self.port,) = free_ports(1)
        self.box = made.join("box-7")
        self.state, self.clock = self.box.state, made.folder / "clock"
        self.clock.write_text("+0")
        self.box.configure({
            "autonomy": {
                "listen": f"127.0.0.1:{self.port}", "server": f"127.0.0.1:{self.kube.listener.ports[0]}",
                "ca": str(self.folder / "ca.crt"), "client_cert": str(self.certificate),
                "client_key": str(self.key), "kubelet_cgroup": str(own_cgroup()),
            }
        })  # fmt: skip
        self.box.agent.go_through(*clock_in(self.clock))

    async def boot(self, clock: str) -> None:
        """Start the agent's process with another clock."""
        if self.box.agent.running:
            await asyncio.to_thread(self.box.agent.kill)
        self.clock.write_text(clock)
        await asyncio.to_thread(self.box.agent.start)
        await eventually(self.listens, 30)

    def listens(self) -> bool:
        with socket.socket() as trying:
            return trying.connect_ex(("127.0.0.1", self.port)) == 0

    async def status(self) -> dict[str, object]:
        _, status = await asyncio.to_thread(status_of, self.box)
        return dict(status["autonomy"])


@asynccontextmanager
async def clocked(folder: Path) -> AsyncIterator[Clocked]:
    with cluster() as made:
        node = Clocked(folder)
        await asyncio.to_thread(made.start)
        await node.begin(made)
        try:
            yield node
        except BaseException as error:
            error.add_note(made.logs())
            raise
        finally:
            await node.kube.listener.aclose()


async def test_a_wrong_clock_takes_nothing_from_a_node(tmp_path: Path) -> None:
    async with clocked(tmp_path) as node:
        await node.kube.put("pods", "one", "ns")
        await node.kube.put("services", "web", "ns")
        node.kube.users, node.kube.rights = {token(PROXY): PROXY, token(DNS): DNS}, {PROXY: {"services"}, DNS: set()}
        await node.boot("+0")
        assert (await node.as_kubelet("GET", PODS)).names == ["one"]
        assert (await node.ask("GET", SERVICES, USER)).names == ["web"]
        answered = {"kind": "TokenRequest", "status": {"token": "t", "expirationTimestamp": OVER}}
        body = json.dumps(answered).encode()
        assert (await node.as_kubelet("POST", TOKEN, body, content_type=JSON[0][1])).status == 201
        node.kube.cut()
        # 400 days ahead, all certificates are over, and the kubelet shows none.
        for number, clock in enumerate(("@1970-01-01 00:00:30", "-400d", "+400d")):
            await node.boot(clock)
            shown = (node.certificate, node.key) if clock != "+400d" else None
            assert (await node.ask("GET", PODS, shown=shown)).names == ["one"], clock
            said = await node.ask("POST", TOKEN, JSON, body, shown=shown)
            assert (said.status, json.loads(said.body)) == (201, answered), clock
            assert (await node.ask("GET", SERVICES, USER)).names == ["web"], clock
            event = json.dumps({"metadata": {"name": f"event-{number}"}}).encode()
            said = await node.ask("POST", "/api/v1/namespaces/ns/events", JSON, event, shown=shown)
            assert said.status == 202, clock
        assert (await node.ask("GET", PODS, USER)).status == 503, "others are who they are"
        left_s = (await node.status())["grace_left_s"]
        assert isinstance(left_s, int)
        assert left_s > 29 * 86400, "the clock does not take it away"
        # The clock is set while the agent runs: what it has noted is told by that.
        node.clock.write_text("+0")
        since = dt.datetime.fromisoformat(str((await node.status())["since"]))
        assert abs(dt.datetime.now(dt.UTC) - since) < dt.timedelta(minutes=2)
        assert (await node.ask("GET", PODS)).status == 503, "the certificate is good, and is to be shown"
        node.kube.gone = False
        await eventually(lambda: len([path for _, path, _ in node.kube.writes if "events" in path]) == 3, 20)
