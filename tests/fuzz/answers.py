"""What servers answer to us: HTTP over any stream, proxies, the fleet and admin APIs, sockets, kubelets, gRPC."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

from h2.config import H2Configuration
from h2.connection import H2Connection

from cloud_server.frontends.konnectivity.messages import CallFailed, MessageReader
from edge_agent.hostkubelet.channels import ChannelSocket
from tests.fuzz.engine import TOP, Target
from tests.fuzz.fed import Fed, Loop
from tunnel.aio.http.http1 import ClientConnection
from tunnel.aio.http.http2_client import WINDOW_BYTES, Http2Client
from tunnel.aio.operate.explained import explanation_text
from tunnel.aio.sockets.http_proxy import HttpProxy, ProxyUnusable, parse_proxy, proxy_for
from tunnel.core.wire.errors import StreamError
from tunnel.tool import commands_users
from tunnel.tool.admin import (
    OPENS_HEAD,
    agent_text,
    agents_text,
    documents,
    event_text,
    open_change_text,
    open_row,
    status_text,
    user_text,
    users_text,
    whoami_text,
)
from tunnel.tool.answers import (
    AGENT,
    AGENTS,
    EVENT,
    EXPLANATION,
    OPEN_CHANGE,
    OPENS,
    STATUS,
    USER,
    USERS,
    WHOAMI,
)
from tunnel.tool.api import Answer, Api, ApiFailed
from tunnel.tool.boxes import box_names, list_boxes, offers_of
from tunnel.tool.connect import Patience, Proxy
from tunnel.tool.recordings import listed
from tunnel.tool.tables import table
from tunnel.tool.wire import PlainWire

if TYPE_CHECKING:
    from tunnel.aio.sockets.conn import Conn

_WORDS = (
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 101 S\r\n", b"HTTP/1.1 403 No\r\n", b"Content-Length: 3\r\n", b"\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1 100 C\r\n\r\n", b"\x1b[2J",
)  # fmt: skip


def targets() -> list[Target]:
    """Returns the targets of this file."""
    loop = Loop()
    return [
        _answers(loop),
        _http2_answers(loop),
        _proxy_answers(),
        _proxy_urls(),
        _api(),
        _documents(),
        _channels(loop),
        _grpc_messages(),
    ]


def _answers(loop: Loop) -> Target:
    async def ask(data: bytes) -> None:
        connection = ClientConnection(Fed(data))
        for _ in range(2):
            await connection.request("GET", "/", [("host", "x")])
            await connection.read_body(1 << 20)

    seeds = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi" * 2, b"HTTP/1.1 100 C\r\n\r\nHTTP/1.1 404 No\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nabc",
    ]  # fmt: skip
    return Target(
        name="http-answers",
        seeds=seeds,
        run=lambda data: loop.run(lambda: ask(data)),
        allowed=(StreamError,),
        words=_WORDS,
    )


def _http2_answers(loop: Loop) -> Target:
    async def ask(data: bytes) -> None:
        client = Http2Client(cast("Conn", Fed(data)))
        asked = [client.get("x", f"/{number}", [("accept", "a")]) for number in range(2)]
        await client.run()
        assert not client.has_room
        for answer in asked:
            with suppress(StreamError):
                await answer.response()
                while chunk := await answer.read_chunk():
                    assert len(chunk) <= WINDOW_BYTES, "more was held than its window"

    def answered() -> bytes:
        server = H2Connection(H2Configuration(client_side=False))
        server.initiate_connection()
        client = H2Connection(H2Configuration())
        client.initiate_connection()
        heads = [(":method", "GET"), (":path", "/"), (":scheme", "https"), (":authority", "x")]
        for number in (1, 3):
            client.send_headers(number, heads, end_stream=True)
        server.receive_data(client.data_to_send())
        for number in (1, 3):
            server.send_headers(number, [(":status", "200"), ("content-type", "a")])
            server.send_data(number, b"hi", end_stream=number == 1)
        server.ping(b"12345678")
        server.reset_stream(3)
        return server.data_to_send()

    seed = answered()
    words = (
        b"\0\0\4\1\4\0\0\0\1",
        b"\0\0\4\7\0\0\0\0\0",
        b"\0\0\2\0\1\0\0\0\3hi",
        b"\x88",
        b"\0\0\4\3\0\0\0\0\1\0\0\0\1",
    )
    return Target(
        name="http2-answers", seeds=[seed, seed[:-20]], run=lambda data: loop.run(lambda: ask(data)), words=words
    )


def _proxy_answers() -> Target:
    proxy = HttpProxy(host="p", port=1, user="u", password="s3cret", source="https_proxy")

    def run(data: bytes) -> None:
        said = proxy.refusal(data, "cloud", 443)
        assert said is None or (said.isprintable() and "s3cret" not in said)

    return Target(
        name="proxy-answers",
        seeds=[b"HTTP/1.1 200 Connection established\r\n\r\n", b"HTTP/1.0 407 Auth\r\n\r\n", b"HTTP/1.1 403 no\r\n"],
        run=run,
        words=_WORDS,
    )


def _proxy_urls() -> Target:
    def run(data: bytes) -> None:
        text, _, exceptions = data.decode("latin-1").partition("\n")
        proxy_for("10.0.0.1", text, "x", {"no_proxy": exceptions})
        made = parse_proxy(text, "x")
        assert made.url
        assert made.request("a", 1)

    return Target(
        name="proxy-urls",
        seeds=[b"http://u:p%40@proxy:3128\n10.0.0.0/8,.local", b"proxy:1", b"http://[::1]:1"],
        run=run,
        allowed=(ProxyUnusable,),
        words=(b"http://", b"@", b"[", b"]", b"/33", b"%"),
    )


class _Socket:
    """The socket of a server that says what the input says."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def settimeout(self, _seconds: float | None) -> None:
        """It never waits."""

    def sendall(self, _data: bytes) -> None:
        """It takes all."""

    def recv(self, count: int) -> bytes:
        data, self._data = self._data[:count], self._data[count:]
        return data

    def close(self) -> None:
        """There is nothing to close."""


class ToldApi(Api):
    """An API whose server says what it is given, for whoever reads its answers."""

    def __init__(self, data: bytes) -> None:
        super().__init__(Path("/nowhere"))
        self._data = data

    def _dial(self, patience: Patience) -> Answer:
        return Answer(Proxy("server", cast("socket.socket", _Socket(self._data)), PlainWire()), patience)


def _api() -> Target:
    refusals = (
        b'{"kind":"Status","message":"m","details":{"causes":[{"reason":"LL4001"}]}}',
        b'{"error":{"code":"LL4001","text":"t","remedy":"r"}}',
    )
    seeds = [b"HTTP/1.1 403 No\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body) for body in refusals]
    seeds += [b"HTTP/1.1 200 OK\r\n\r\n" + b'{"a": [1]}', b"HTTP/1.1 401 No\r\n\r\n{}"]
    return Target(
        name="api-answers",
        seeds=seeds,
        run=lambda data: ToldApi(data).get("/x"),
        allowed=(ApiFailed,),
        words=(*_WORDS, b'"details":', b'"causes":', b'"error":', b'"message":', b"[" * 5000),
    )


READERS: dict[str, Callable[[Api], object]] = {
    "status": lambda api: status_text(api.get("/", STATUS)),
    "agents": lambda api: agents_text(api.get("/", AGENTS)["agents"]),
    "agent": lambda api: agent_text(api.get("/", AGENT)),
    "users": lambda api: users_text(api.get("/", USERS)["users"]),
    "user": lambda api: user_text(api.get("/", USER)),
    "opens": lambda api: table(OPENS_HEAD, map(open_row, api.get("/", OPENS)["opens"])),
    "open-changes": lambda api: [open_change_text(line) for line in documents(api, "/", OPEN_CHANGE)],
    "events": lambda api: [event_text(line) for line in documents(api, "/", EVENT)],
    "whoami": lambda api: whoami_text(api.get("/", WHOAMI)),
    "explanation": lambda api: explanation_text(api.get("/", EXPLANATION)),
    "nodes": list_boxes,
    "rows": box_names,
    "pod": lambda api: offers_of(api, "a"),
    "recordings": lambda api: listed(api, "a"),
    "made-token": lambda api: commands_users._token(api, "ann", timedelta(days=1), "bearer"),
}
"""What reads each document of a server, by its name in corpus/documents.json."""


def good_documents() -> dict[str, object]:
    """Returns a good document of each kind, by name."""
    good: dict[str, object] = json.loads((TOP / "tests" / "fuzz" / "corpus" / "documents.json").read_bytes())
    return good


def _documents() -> Target:
    """Returns the target for all documents that commands read: the first byte of an input says which one follows."""

    def run(data: bytes) -> None:
        name = names[(data[0] if data else 0) % len(names)]
        READERS[name](ToldApi(b"HTTP/1.1 200 OK\r\n\r\n" + data[1:]))

    names, good = [*READERS], good_documents()
    seeds = [bytes([number]) + json.dumps(good[name]).encode() for number, name in enumerate(names)]
    return Target(
        name="documents",
        seeds=seeds,
        run=run,
        allowed=(ApiFailed,),
        words=(b'"scope":5', b":null", b":[]", b":{}", b":5", b':"x"', b':"9999-12-31T23:59:59-23:59"'),
    )


def _channels(loop: Loop) -> Target:
    async def receive(data: bytes) -> None:
        async for _ in ChannelSocket(Fed(data)).events():
            pass

    def frame(payload: bytes, head: int = 0x82) -> bytes:
        return bytes([head, 0x80 | len(payload), 0, 0, 0, 0]) + payload

    size = frame(b'\x04{"Width":80,"Height":24}')
    seeds = [
        frame(b"\0ls\n") + size,
        frame(b"\xff\0") + frame(b"\x03\xe8", 0x88),
        frame(b"\0a", 0x02) + frame(b"b", 0x80) + frame(b"p", 0x89),
        frame(b"\0t", 0x81),
    ]
    return Target(
        name="exec-channels",
        seeds=seeds,
        run=lambda data: loop.run(lambda: receive(data)),
        words=(size, b'{"Width":', b"\x82\xfe", b"\x82\xff", b"1e999", b"Infinity"),
    )


def _grpc_messages() -> Target:
    from google.protobuf.message import DecodeError

    from protos.konnectivity_pb2 import Data, DialRequest, Packet, PacketType

    dial = Packet(type=PacketType.DIAL_REQ, dial_request=DialRequest(protocol="tcp", address="a:1", random=5))
    data = Packet(type=PacketType.DATA, data=Data(connect_id=1, data=b"x"))

    def run(given: bytes) -> None:
        reader = MessageReader(b"")
        for at in range(0, len(given), 5):
            for message in reader.feed(given[at : at + 5]):
                Packet.FromString(message)

    seeds = [b"\0" + len(one).to_bytes(4) + one for one in (dial.SerializeToString(), data.SerializeToString())]
    return Target(
        name="konnectivity", seeds=seeds, run=run, allowed=(CallFailed, DecodeError), words=(b"\0\0\0\0\x05", b"\1")
    )
