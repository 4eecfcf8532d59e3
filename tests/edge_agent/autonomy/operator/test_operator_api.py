"""What the local operator of a node sees and may do, and that nothing of theirs ever goes up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edge_agent.autonomy.answering.answers import refuse
from edge_agent.autonomy.operator.kubelet_access import KubeletAccess
from edge_agent.autonomy.operator.operator_api import Action, OperatorApi, OperatorSettings
from edge_agent.autonomy.operator.operator_tokens import Operator
from edge_agent.autonomy.upward.lines import Lines
from tests.edge_agent.autonomy.kube import Node, node_and_kube
from tests.support.waits import eventually
from tunnel.aio.http.exchange import Exchange
from tunnel.aio.http.http1 import ClientConnection, HttpError, Refusal, Request, Response, ServerConnection
from tunnel.aio.http.server import HttpServer
from tunnel.aio.operate.audit import AuditUnavailable
from tunnel.aio.process.config import ServerAddress
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.listener import Listener
from tunnel.aio.sockets.tcp import connect_tcp
from tunnel.kubeapi.status import ApiError

Json = dict[str, Any]
KIM = Operator("kim", datetime.now(UTC) + timedelta(hours=1), "9c21ab12")
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
POD = "/api/v1/namespaces/ns/pods/one"


@dataclass
class Book:
    """An audit log in memory."""

    records: list[Json] = field(default_factory=list)
    is_full: bool = False

    def record(self, event: str, **fields: object) -> None:
        self.records.append({"event": event, **fields})

    def record_folded(self, event: str, key: Hashable, **fields: object) -> None:
        hash(key)
        self.record(event, **fields)

    def admit(self) -> None:
        if self.is_full:
            raise AuditUnavailable("the disk is full")

    def named(self, *names: str) -> list[list[object]]:
        return [[record.get(name) for name in ("event", *names)] for record in self.records]


@dataclass
class Local:
    """A node, its operator, and a kubelet that answers whatever it is asked."""

    node: Node
    book: Book = field(default_factory=Book)
    asked: list[Request] = field(default_factory=list)
    status: int = 200
    listener: Listener = field(init=False)
    kubelet: Listener = field(init=False)
    operator: OperatorApi = field(init=False)

    async def start(self) -> None:
        self.kubelet = Listener("kubelet", self._kubelet)
        await self.kubelet.listen_tcp("127.0.0.1:0")
        self.allow("read", "logs")
        server = HttpServer(self._serve, lambda error: Refusal("text/plain", error.text.encode()), lambda _peer: True)
        self.listener = Listener("proxy", server.handle)
        await self.listener.listen_tcp("127.0.0.1:0")

    def allow(self, *actions: Action) -> None:
        access = KubeletAccess(ServerAddress("127.0.0.1:10250"), Path("/none"))
        access.lines = Lines(self._dial)
        feeds, uplink = self.node.api.feeds, self.node.api.uplink
        self.operator = OperatorApi(OperatorSettings(allow=frozenset(actions)), feeds, uplink, access, self.book)
        self.access = access

    async def _dial(self, *, http2: bool) -> Conn:
        return await dialled(self.kubelet)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[ClientConnection]:
        conn = await dialled(self.listener)
        try:
            yield ClientConnection(conn)
        finally:
            conn.reset()

    async def ask(self, target: str, method: str = "GET", **headers: str) -> tuple[Response, Any]:
        async with self.client() as http:
            items = [("host", "x"), *((name.replace("_", "-"), value) for name, value in headers.items())]
            head = await http.request(method, target, items)
            body = await http.read_body(1 << 22)
        kind = head.headers.get("content-type") or ""
        return head, json.loads(body) if kind.startswith("application/json") else body

    async def stop(self) -> None:
        self.access.lines.cut()
        await self.listener.aclose()
        await self.kubelet.aclose()

    async def _serve(self, _conn: Conn, exchange: Exchange, request: Request) -> None:
        try:
            await self.operator.serve(exchange, request, KIM)
        except (ApiError, HttpError) as error:
            await refuse(exchange, error if isinstance(error, ApiError) else ApiError(error.status, error.text))

    async def _kubelet(self, conn: Conn) -> None:
        http = ServerConnection(conn)
        while (request := await http.next_request()) is not None:
            self.asked.append(request)
            if request.upgrade:
                rest = await http.upgrade([("connection", "Upgrade"), ("upgrade", request.upgrade)])
                await conn.write(b"you said: " + (rest or await conn.read()))
                await conn.write_eof()
                return
            await http.respond(self.status, [("content-type", "text/plain")], b"a line\n")


async def dialled(listener: Listener) -> Conn:
    conn = Conn()
    await connect_tcp(lambda: conn, "127.0.0.1", listener.ports[0])
    return conn


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Local]:
    async with node_and_kube(tmp_path) as node:
        containers = [{"name": "web"}, {"name": "side"}]
        await node.kube.put("nodes", "n", status={"conditions": [{"type": "Ready", "status": "True"}]})
        await node.kube.put("pods", "one", "ns", spec={"containers": containers[:1]}, status={"phase": "Running"})
        await node.kube.put("pods", "two", "other", spec={"containers": containers}, status={"phase": "Pending"})
        await node.kube.put("secrets", "s", "ns")
        for target in ("pods", "nodes?fieldSelector=metadata.name%3Dn", "namespaces/ns/secrets?x"):
            await node.names(f"/api/v1/{target.removesuffix('x')}{'&' if '?' in target else '?'}resourceVersion=0")
        made = Local(node)
        await made.start()
        node.kube.seen.clear()
        yield made
        assert not [one for one in node.kube.seen if "watch" not in one and "readyz" not in one], "nothing goes up"
        await made.stop()


def printed(said: Json) -> list[list[str]]:
    """The first cells of each row of a Table."""
    assert said["kind"] == "Table"
    return [[str(cell) for cell in row["cells"][:3]] for row in said["rows"]]


# Reading


async def test_lists_are_tables_of_what_is_kept_whether_the_cloud_is_there_or_not(local: Local) -> None:
    for is_away in (False, True):
        if is_away:
            await local.node.cut()
        head, said = await local.ask("/api/v1/pods", accept=TABLE)
        assert printed(said) == [["one", "0/1", "Running"], ["two", "0/2", "Pending"]]
        warning = head.headers.get("warning") or ""
        assert "this is what the node knows, not the cluster" in warning
        assert ("the API server is not reached since" in warning) is is_away
    _, said = await local.ask("/api/v1/nodes", accept=TABLE)
    assert printed(said) == [["n", "Ready", "<none>"]]
    assert local.book.named("who", "action", "resource", "proof")[0] == [
        "read",
        "kim",
        "read",
        "pods",
        "token:9c21ab12",
    ]


async def test_lists_are_selected_and_single_objects_are_whole(local: Local) -> None:
    _, said = await local.ask("/api/v1/namespaces/ns/pods")
    assert (said["kind"], [item["metadata"]["name"] for item in said["items"]]) == ("PodList", ["one"])
    _, said = await local.ask("/api/v1/pods?fieldSelector=status.phase%3DPending", accept=TABLE)
    assert printed(said) == [["two", "0/2", "Pending"]]
    _, said = await local.ask(POD)
    assert (said["kind"], said["apiVersion"], said["spec"]) == ("Pod", "v1", {"containers": [{"name": "web"}]})
    head, said = await local.ask("/api/v1/namespaces/ns/pods/none")
    assert (head.status, said["reason"]) == (404, "NotFound")


async def test_of_what_is_not_kept_there_is_no_list(local: Local) -> None:
    for target in ("/api/v1/services", "/apis/apps/v1/deployments"):
        head, said = await local.ask(target, accept=TABLE)
        assert (head.status, head.headers.get("retry-after")) == (503, None)
        assert "nothing is kept on this node of" in said["message"]


async def test_kubectl_finds_what_there_is(local: Local) -> None:
    assert (await local.ask("/api"))[1]["versions"] == ["v1"]
    groups = [group["name"] for group in (await local.ask("/apis"))[1]["groups"]]
    assert "storage.k8s.io" in groups
    for path in ("/api/v1", *(f"/apis/{group}/v1" for group in groups)):
        _, said = await local.ask(path)
        assert said["kind"] == "APIResourceList"
        assert said["resources"]
    names = [one["name"] for one in (await local.ask("/api/v1"))[1]["resources"]]
    assert {"pods", "pods/log", "pods/exec", "secrets"} <= set(names)
    assert (await local.ask("/apis/apps/v1"))[0].status == 403


async def test_what_is_not_allowed_is_refused_and_recorded(local: Local) -> None:
    head, said = await local.ask("/api/v1/secrets", accept=TABLE)
    assert (head.status, said["reason"], said["details"]["causes"][0]["reason"]) == (403, "Forbidden", "LL5051")
    assert ["refused", "kim", "secrets", "LL5051"] in local.book.named("who", "action", "code")
    for target, method in ((POD, "DELETE"), ("/api/v1/pods?watch=1", "GET"), (f"{POD}/attach", "POST"), ("/x", "GET"),
                           ("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "POST")):  # fmt: skip
        assert (await local.ask(target, method))[0].status == 403
    assert (await local.ask("/api/v1/pods", impersonate_user="admin"))[0].status == 403
    local.allow("secrets", "logs")
    assert (await local.ask("/api/v1/pods"))[0].status == 403, "without read nothing is read"
    local.allow("read", "secrets")
    assert printed((await local.ask("/api/v1/secrets", accept=TABLE))[1])[0][0] == "s"
    assert (await local.ask(f"{POD}/log"))[0].status == 403
    assert not local.asked


# Logs and commands


async def test_logs_come_from_the_kubelet_as_the_agent(local: Local) -> None:
    await local.node.cut()
    query = "follow=true&tailLines=5&insecureSkipTLSVerifyBackend=true&container=web"
    head, said = await local.ask(f"{POD}/log?{query}", authorization="Bearer longline-operator-x")
    assert (head.status, said) == (200, b"a line\n")
    (asked,) = local.asked
    assert (asked.method, asked.target) == ("GET", "/containerLogs/ns/one/web?follow=true&tailLines=5")
    assert [asked.headers.getlist("authorization")] == [[local.access.credentials()[1]]]
    await eventually(lambda: len(local.book.records) == 2)
    named = local.book.named("who", "action", "of", "container")
    assert named == [[event, "kim", "logs", "ns/one", "web"] for event in ("open", "end")]


async def test_a_container_is_found_or_must_be_named(local: Local) -> None:
    assert (await local.ask(f"{POD}/log"))[0].status == 200
    assert local.asked[-1].path == "/containerLogs/ns/one/web"
    two = "/api/v1/namespaces/other/pods/two/log"
    head, said = await local.ask(two)
    assert (head.status, "choose one of: ['web', 'side']" in said["message"]) == (400, True)
    assert (await local.ask(f"{two}?container=side"))[0].status == 200
    assert (await local.ask(f"{two}?container=..%2F..%2Fx"))[0].status == 400
    for pod in ("none", "..", "two%2F..%2Fx"):
        assert (await local.ask(f"/api/v1/namespaces/ns/pods/{pod}/log"))[0].status in (403, 404)
    assert len(local.asked) == 2


async def test_a_command_is_passed_through_both_ways(local: Local) -> None:
    target = f"{POD}/exec?command=sh&command=-c&command=id+-u&stdin=true&stdout=true&stderr=false&tty=true"
    upgrade = {"connection": "Upgrade", "upgrade": "SPDY/3.1", "x_stream_protocol_version": "v5.channel.k8s.io"}
    assert (await local.ask(target, "POST", **upgrade))[0].status == 403, "exec is off by default"
    local.allow("read", "exec")
    assert (await local.ask(target, **(upgrade | {"upgrade": "websocket"})))[0].status == 400, "kubectl falls back"
    conn = await dialled(local.listener)
    http = ClientConnection(conn)
    items = [("host", "x"), *((name.replace("_", "-"), value) for name, value in upgrade.items())]
    head = await http.request("POST", target, items)
    assert (head.status, head.headers.get("upgrade")) == (101, "SPDY/3.1")
    await conn.write(b"hello")
    said = http.trailing_data()
    async with asyncio.timeout(5):
        while b"hello" not in said:
            said += await conn.read()
    assert said == b"you said: hello"
    conn.reset()
    (asked,) = local.asked
    wanted = "/exec/ns/one/web?command=sh&command=-c&command=id+-u&input=1&output=1&tty=1"
    assert (asked.method, asked.target) == ("POST", wanted)
    assert asked.headers.get("x-stream-protocol-version") == "v5.channel.k8s.io"
    await eventually(lambda: local.book.records[-1]["event"] == "end")
    assert local.book.records[-1]["command"] == ["sh", "-c", "id -u"]


@pytest.mark.parametrize("status", [401, 403])
async def test_a_kubelet_that_does_not_know_the_agent_is_named(local: Local, status: int) -> None:
    local.status = status
    head, said = await local.ask(f"{POD}/log")
    assert (head.status, said["details"]["causes"][0]["reason"]) == (503, "LL5052")
    assert f"it answers {status}" in said["message"]
    await local.kubelet.aclose()
    head, said = await local.ask(f"{POD}/log")
    assert (head.status, said["details"]["causes"][0]["reason"]) == (503, "LL5052")


async def test_what_the_kubelet_says_of_a_log_is_passed_on(local: Local) -> None:
    local.status = 404
    assert (await local.ask(f"{POD}/log"))[0].status == 404


async def test_what_cannot_be_recorded_is_not_done(local: Local) -> None:
    local.book.is_full = True
    head, said = await local.ask(f"{POD}/log")
    assert (head.status, said["details"]["causes"][0]["reason"]) == (503, "LL6014")
    assert not local.asked


async def test_whom_the_box_does_not_know_the_api_server_does(tmp_path: Path) -> None:
    """A kubelet asks who others are, too: those of the cluster are the cluster's, and while it is away nobody's."""
    async with node_and_kube(tmp_path) as node:
        path = "/apis/authentication.k8s.io/v1/tokenreviews"
        body = b'{"kind":"TokenReview","spec":{"token":"other"}}'
        access = KubeletAccess(ServerAddress("127.0.0.1:10250"), Path("/none"))
        node.api._vouch = access.review
        head, said = await node.ask("POST", path, body, content_type="application/json")
        assert (head.status, said) == (201, json.loads(body))
        assert node.kube.writes == [("POST", path, body)]
        own = json.dumps({"spec": {"token": access.credentials()[1].removeprefix("Bearer ")}}).encode()
        for _ in range(2):
            head, said = await node.ask("POST", path, own, content_type="application/json")
            assert (head.status, said["status"]["authenticated"]) == (201, True)
            head, _ = await node.ask("POST", path, own, content_type="application/json", x_nobody="1")
            assert head.status == (503 if node.kube.gone else 201), "only the kubelet is answered here"
            node.kube.cut()
            node.api.uplink.doubt()
            await node.until_away()
        assert (await node.ask("POST", path, body, content_type="application/json"))[0].status == 503
        assert [written for _, _, written in node.kube.writes] == [body, own], "the second one came from a stranger"
