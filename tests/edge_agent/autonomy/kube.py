"""An API server of a few objects in this process, which can be silent, gone or in trouble, and a node's proxy."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from edge_agent.autonomy.answering.answers import refuse
from edge_agent.autonomy.kept.feeds import KeptLimits
from edge_agent.autonomy.kept.sharing import SharedReader
from edge_agent.autonomy.node_api import NodeApi
from edge_agent.autonomy.upward.lines import Lines
from tests.support.waits import eventually
from tunnel.aio.http.exchange import Exchange
from tunnel.aio.http.http1 import ClientConnection, HttpError, Refusal, Request, Response, ServerConnection
from tunnel.aio.http.server import HttpServer
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.listener import Listener
from tunnel.aio.sockets.tcp import connect_tcp
from tunnel.core.wire.errors import StreamError
from tunnel.kubeapi.codecs import PROTOBUF
from tunnel.kubeapi.request_info import RequestInfo, request_info
from tunnel.kubeapi.selectors import parse
from tunnel.kubeapi.status import ApiError

JSON = [("content-type", "application/json")]
Json = dict[str, Any]
KINDS = {"pods": "Pod", "nodes": "Node", "services": "Service", "secrets": "Secret", "csinodes": "CSINode",
         "configmaps": "ConfigMap", "endpointslices": "EndpointSlice", "namespaces": "Namespace"}  # fmt: skip


@dataclass
class Kube:
    """The API server: objects by resource, namespace and name, one version for all, and its events."""

    objects: dict[tuple[str, str, str], Json] = field(default_factory=dict)
    version: int = 100
    oldest: int = 100
    """The version from which on events are known."""
    events: list[tuple[int, str, str, Json]] = field(default_factory=list)
    """Version, resource, type and object."""
    seen: list[str] = field(default_factory=list)
    """Method and target of each request."""
    writes: list[tuple[str, str, bytes]] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)
    """The status that paths beginning so are answered with."""
    watch_status: int = 0
    """The status that watches of what is new are answered with; 0: they run."""
    unversioned: set[str] = field(default_factory=set)
    """The resources whose lists have no version."""
    users: dict[str, str] = field(default_factory=dict)
    """By token, whose it is."""
    rights: dict[str, set[str]] = field(default_factory=dict)
    """By user, the resources that they may list and watch."""
    node_rights: set[str] = field(default_factory=lambda: set(KINDS))
    """The resources that the node may list and watch, as it says when it is asked."""
    refuses_node: bool = False
    """Whether the node's own certificate is refused, with 401."""
    as_node: list[str] = field(default_factory=list)
    """Method and target of each request with the node's certificate."""
    silent: bool = False
    """Whether nothing is answered any more."""
    gone: bool = False
    """Whether connections are refused."""
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    connections: set[Conn] = field(default_factory=set)
    listener: Listener = field(init=False)
    node_listener: Listener = field(init=False, repr=False)
    """Where the node comes with its certificate."""

    async def start(self) -> None:
        self.listener = Listener("kube", self.serve)
        self.node_listener = Listener("kube for the node", self.serve_node)
        await self.listener.listen_tcp("127.0.0.1:0")
        await self.node_listener.listen_tcp("127.0.0.1:0")

    async def stop(self) -> None:
        await self.listener.aclose()
        await self.node_listener.aclose()

    async def put(self, resource: str, name: str, namespace: str = "", **content: Any) -> Json:
        """Make or change an object."""
        key = (resource, namespace, name)
        before = self.objects.get(key)
        self.version += 1
        uid = before["metadata"]["uid"] if before is not None else f"uid-{self.version}"
        metadata = {"name": name, "uid": uid, "resourceVersion": str(self.version)}
        if namespace:
            metadata["namespace"] = namespace
        self.objects[key] = {"metadata": metadata, **content}
        await self._tell(resource, "ADDED" if before is None else "MODIFIED", self.objects[key])
        return self.objects[key]

    async def remove(self, resource: str, name: str, namespace: str = "") -> None:
        self.version += 1
        last = self.objects.pop((resource, namespace, name))
        last = {**last, "metadata": {**last["metadata"], "resourceVersion": str(self.version)}}
        await self._tell(resource, "DELETED", last)

    def forget(self) -> None:
        """What happened up to now cannot be watched any more."""
        self.oldest = self.version
        self.events.clear()

    def cut(self) -> None:
        """All connections break, and no other comes about."""
        self.gone = True
        for conn in tuple(self.connections):
            conn.reset()

    def counts(self) -> Counter[str]:
        """How often each path was asked for, watches under `watch PATH`."""
        return Counter(
            f"{'watch ' if 'watch=1' in target else ''}{target.partition(' ')[2].partition('?')[0]}"
            for target in self.seen
        )

    # Internal

    async def _tell(self, resource: str, kind: str, item: Json) -> None:
        async with self.changed:
            self.events.append((self.version, resource, kind, item))
            self.changed.notify_all()

    async def serve_node(self, conn: Conn) -> None:
        await self.serve(conn, as_node=True)

    async def serve(self, conn: Conn, *, as_node: bool = False) -> None:
        if self.gone:
            conn.reset()
            return
        self.connections.add(conn)
        http = ServerConnection(conn)
        with suppress(StreamError):
            while (request := await http.next_request()) is not None:
                if self.silent:
                    await asyncio.sleep(3600)
                self.seen.append(f"{request.method} {request.target}")
                if as_node:
                    self.as_node.append(self.seen[-1])
                await self._answer(http, request, as_node=as_node)
        self.connections.discard(conn)

    async def _answer(self, http: ServerConnection, request: Request, *, as_node: bool) -> None:
        info = request_info(request.method, request.path, request.query)
        body = await http.read_body(1 << 22)
        status = next((code for path, code in self.answers.items() if request.path.startswith(path)), 0)
        token = (request.headers.get("authorization") or "").removeprefix("Bearer ")
        if (as_node and self.refuses_node) or (token and token not in self.users):
            status = 401
        elif info.resource in KINDS and not as_node:
            may = self.rights[self.users[token]] if token else set()
            status = status if info.resource in may else 403
        if info.verb == "watch" and "sendInitialEvents" not in request.target:
            status = status or self.watch_status
        if status:
            await http.respond(status, JSON, json.dumps(ApiError(status, "as told").body()).encode())
        elif not info.is_resource:
            await http.respond(200, JSON, b'"ok"')
        elif info.resource == "selfsubjectreviews":
            said: Json = {"status": {"userInfo": {"username": self.users[token]}}}
            await http.respond(201, JSON, json.dumps(said).encode())
        elif info.resource == "selfsubjectaccessreviews":
            wanted = json.loads(body)["spec"]["resourceAttributes"]["resource"]
            may = self.rights[self.users[token]] if token else self.node_rights
            said = {"status": {"allowed": wanted in may}}
            await http.respond(201, JSON, json.dumps(said).encode())
        elif info.verb == "watch":
            await self._watch(http, info, dict(request.query))
        elif info.verb == "list":
            await http.respond(200, JSON, json.dumps(self._list(info, dict(request.query))).encode())
        elif info.verb == "get":
            item = self.objects.get((info.resource, info.namespace, info.name))
            kind = {"kind": KINDS.get(info.resource, "Thing"), "apiVersion": "v1"}
            if item is None:
                await http.respond(404, JSON, json.dumps(ApiError(404, "not found").body()).encode())
            else:
                await _give(http, request, 200, json.dumps({**kind, **item}).encode())
        else:
            self.writes.append((request.method, request.path, body))
            await _give(http, request, 201 if request.method == "POST" else 200, body or b"{}")

    def _selected(self, info: RequestInfo, query: dict[str, str], item: Json) -> bool:
        if info.namespace not in ("", item["metadata"].get("namespace", "")):
            return False
        fields = [one for one in query.get("fieldSelector", "").split(",") if not one.startswith("spec.nodeName")]
        return parse(info.resource, query.get("labelSelector", ""), ",".join(fields)).matches(item)

    def _list(self, info: RequestInfo, query: dict[str, str]) -> Json:
        items = [item for (resource, _, _), item in sorted(self.objects.items()) if resource == info.resource]
        kind = f"{KINDS.get(info.resource, 'Thing')}List"
        metadata = {"resourceVersion": str(self.version)} if info.resource not in self.unversioned else {}
        selected = [item for item in items if self._selected(info, query, item)]
        return {"kind": kind, "apiVersion": "v1", "metadata": metadata, "items": selected}

    async def _watch(self, http: ServerConnection, info: RequestInfo, query: dict[str, str]) -> None:
        begins = "sendInitialEvents" in query
        at = 0 if begins else int(query["resourceVersion"])
        if at < self.oldest and not begins:
            await http.respond(200, JSON, json.dumps({"type": "ERROR", "object": ApiError(410, "old").body()}).encode()
                               + b"\n")  # fmt: skip
            return
        await http.start(200, JSON)
        if begins:
            for item in self._list(info, query)["items"]:
                await http.send(json.dumps({"type": "ADDED", "object": item}).encode() + b"\n")
            at = self.version
        while True:
            for version, resource, kind, item in list(self.events):
                if version > at and resource == info.resource and self._selected(info, query, item):
                    typed = {"kind": KINDS.get(resource, "Thing"), "apiVersion": "v1", **item}
                    await http.send(json.dumps({"type": kind, "object": typed}).encode() + b"\n")
            at = self.version
            async with self.changed:
                await self.changed.wait()


async def _give(http: ServerConnection, request: Request, status: int, body: bytes) -> None:
    """Answer with an object; who would rather have Protobuf gets some, which nobody here can read."""
    if (request.headers.get("accept") or "").startswith(PROTOBUF.media_type):
        await http.respond(status, [("content-type", PROTOBUF.media_type)], b"k8s\0 an object")
    else:
        await http.respond(status, JSON, body)


@dataclass
class Node:
    """What the node's components ask, in front of an API server."""

    kube: Kube
    folder: Path
    limits: KeptLimits | None = None
    shared_token: Path | None = None
    api: NodeApi = field(init=False)
    listener: Listener = field(init=False)

    async def start(self) -> None:
        lines = [Lines(partial(self._dial, as_node=True)), Lines(partial(self._dial, as_node=False))]
        self.api = NodeApi(lines[0], lines[1], "api:6443", self.folder, self.limits, SharedReader(self.shared_token))
        await self.api.open()
        server = HttpServer(self._serve, _render, lambda _peer: True)
        self.listener = Listener("proxy", server.handle)
        await self.listener.listen_tcp("127.0.0.1:0")

    async def stop(self) -> None:
        await self.listener.aclose()
        await self.api.aclose()

    async def restart(self) -> None:
        """End it and start it again, with what is on its disk."""
        await self.stop()
        await self.start()

    async def until_up(self) -> None:
        await eventually(lambda: self.api.uplink.is_up)

    async def until_away(self) -> None:
        await eventually(lambda: not self.api.uplink.is_up)

    async def cut(self) -> None:
        """The way to the API server breaks, and that is noticed: else some seconds of silence would tell."""
        self.kube.cut()
        self.api.uplink.doubt()
        await self.until_away()

    async def ask(self, method: str, target: str, body: bytes = b"", **headers: str) -> tuple[Response, Json]:
        """Ask, and return the head of the answer and its body."""
        async with self.client() as http:
            items = [("host", "x"), *((name.replace("_", "-"), value) for name, value in headers.items())]
            head = await http.request(method, target, items, body)
            said = await http.read_body(1 << 24)
        return head, json.loads(said) if said else {}

    async def names(self, target: str, **headers: str) -> list[str]:
        """The names of the objects that a list shows; it must be answered with 200."""
        head, said = await self.ask("GET", target, b"", **headers)
        assert head.status == 200, said
        return [item["metadata"]["name"] for item in said["items"]]

    @asynccontextmanager
    async def client(self) -> AsyncIterator[ClientConnection]:
        conn = Conn()
        await connect_tcp(lambda: conn, "127.0.0.1", self.listener.ports[0])
        try:
            yield ClientConnection(conn)
        finally:
            conn.reset()

    @asynccontextmanager
    async def watching(self, target: str) -> AsyncIterator[Callable[[], Any]]:
        """A watch; the function waits for its next event, and returns None at its end."""
        async with self.client() as http:
            head = await http.request("GET", target, [("host", "x")])
            assert head.status == 200, await http.read_body(1 << 20)
            rest = bytearray()

            async def following() -> Json | None:
                async with asyncio.timeout(10):
                    while b"\n" not in rest:
                        chunk = await http.read_chunk()
                        if not chunk:
                            return None
                        rest.extend(chunk)
                line, _, more = bytes(rest).partition(b"\n")
                rest[:] = more
                return dict(json.loads(line))

            yield following

    # Internal

    async def _dial(self, *, as_node: bool, http2: bool) -> Conn:
        conn = Conn()
        listener = self.kube.node_listener if as_node else self.kube.listener
        await connect_tcp(lambda: conn, "127.0.0.1", listener.ports[0])
        return conn

    async def _serve(self, _conn: Conn, exchange: Exchange, request: Request) -> None:
        try:
            await self.api.serve(
                exchange,
                request,
                is_node=not {"authorization", "x-nobody"} & dict(request.headers).keys(),
            )
        except HttpError as error:
            if exchange.answered:
                raise
            await refuse(exchange, ApiError(error.status, error.text))
        except ApiError as error:
            await refuse(exchange, error)


@asynccontextmanager
async def node_and_kube(
    folder: Path, limits: KeptLimits | None = None, shared_token: Path | None = None
) -> AsyncIterator[Node]:
    """Both, up."""
    kube = Kube()
    await kube.start()
    made = Node(kube, folder, limits, shared_token)
    await made.start()
    try:
        await made.until_up()
        yield made
    finally:
        await made.stop()
        await kube.stop()


def _render(error: HttpError) -> Refusal:
    return Refusal("text/plain", error.text.encode())
