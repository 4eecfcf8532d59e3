"""What strangers and users may send to the HTTP and SOCKS servers: whole connections of each, in memory."""

from __future__ import annotations

import contextlib
import tempfile
from functools import cache
from pathlib import Path

from cloud_server.frontends.connect import ConnectFrontend
from cloud_server.frontends.fleet.server import FleetServer
from cloud_server.frontends.socks import SocksFrontend
from cloud_server.opens.live import LiveOpen
from cloud_server.routing.names import agent_meant, parse_authority, parse_target
from cloud_server.routing.router import Router
from edge_agent.hostkubelet.channels import negotiate
from edge_agent.hostkubelet.exec_request import ExecRequest
from edge_agent.hostkubelet.port_forward import BareTransport, PortForward
from edge_agent.hostkubelet.server import HostKubelet
from edge_agent.hostkubelet.settings import HostSettings
from edge_agent.hostkubelet.status import KubeletError
from tests.fuzz.engine import Target
from tests.fuzz.fed import Fed, Loop, check_answer
from tests.support.doors import Doors, who
from tests.support.fleet import FakeOpener, FakeRegistry, box
from tests.support.policies import everybody_may_all
from tests.support.principals import ANN
from tests.support.records import Records
from tunnel.aio.http.http1 import HttpError, ServerConnection, check_request
from tunnel.aio.http.http2_exchange import request_of
from tunnel.aio.http.http2_stream import Http2Stream
from tunnel.aio.http.metrics_endpoint import MetricsEndpoint
from tunnel.aio.operate.admin import PREFIX, AdminCall, Routes, _unread, answer
from tunnel.aio.operate.bodies import Body
from tunnel.aio.sessions.stream import Stream
from tunnel.aio.sockets.conn import Conn
from tunnel.core.wire.errors import Code, OpenRefused, StreamError
from tunnel.core.wire.principal import Principal
from tunnel.core.wire.target import TcpTarget
from tunnel.kubeapi.spdy import SpdyError, SpdyReceiver

TOKEN = "t0ken"
AUTH = b"Authorization: Bearer t0ken\r\n"
HTTP_WORDS = (
    b"GET ", b"POST ", b"HEAD ", b"OPTIONS * HTTP/1.1\r\n", b" HTTP/1.1\r\n", b"Host: x\r\n", b"http://[", b"http://a:b@c/",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: Upgrade\r\n", b"Upgrade: websocket\r\n",
    b"Expect: 100-continue\r\n", b"0\r\n\r\n", b"\r\n\r\n", b"?a=b&c", b"://", b"//", b"/../", b";", b"#", b" : ",
)  # fmt: skip


def targets() -> list[Target]:
    """Returns the targets of this file."""
    loop = Loop()
    return [
        _metrics(loop), _admin(loop), _fleet(loop), _http2_heads(), _connect(loop), _authority(), _socks(loop),
        _kubelet(loop), _exec(), _spdy(), _port_forward(loop),
    ]  # fmt: skip


def _get(path: bytes, headers: bytes = b"", method: bytes = b"GET", body: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return method + b" " + path + b" HTTP/1.1\r\nHost: x\r\n" + headers + length + b"\r\n" + body


def _metrics(loop: Loop) -> Target:
    page = MetricsEndpoint(lambda: b"up 1\n", lambda: "", lambda: (), lambda: {"link": "down"})

    def run(data: bytes) -> None:
        fed = Fed(data)
        with contextlib.suppress(StreamError):
            loop.run(lambda: page.handle(fed.conn))
        check_answer(data, fed)

    seeds = [_get(b"/metrics"), _get(b"/readyz?verbose") * 2, _get(b"/readyz/link"), _get(b"http://x:80/livez?a=%20b")]
    return Target(name="metrics", seeds=seeds, run=run, words=HTTP_WORDS)


def _admin(loop: Loop) -> Target:
    async def show(call: AdminCall) -> object:
        return {"name": call.values["name"], "query": dict(call.query), "flag": call.flag("watch")}

    async def add(call: AdminCall) -> object:
        from datetime import timedelta

        body = Body(call.body)
        return [
            body.text("name", ""), body.texts("groups"), body.count("count", 1), body.texts_by_name("labels"),
            str(body.life("expires_s", timedelta(days=90))),
        ]  # fmt: skip

    routes = Routes()
    routes.add("GET", "agents/{name}", show)
    routes.add("POST", "users", add)

    async def serve(fed: Fed) -> None:
        http = ServerConnection(fed, refusal=_unread)
        while (request := await http.next_request()) is not None:
            await answer(routes, http, request, ANN, fed.peer)

    def run(data: bytes) -> None:
        fed = Fed(data)
        with contextlib.suppress(StreamError):
            loop.run(lambda: serve(fed))
        if b" 400 " not in fed.written[:20] or (b"in the query" not in fed.written and b"body" not in fed.written):
            check_answer(data, fed)

    path = PREFIX.encode()
    body = b'{"name": "ann", "groups": ["a"], "count": 2, "labels": {"a": "b"}, "expires_s": 60}'
    seeds = [_get(path + b"agents/box-7?watch=1"), _get(path + b"users", method=b"POST", body=body)]
    return Target(name="admin", seeds=seeds, run=run, words=(*HTTP_WORDS, b"agents/", b'"name": ', b"watch=1"))


def _fleet(loop: Loop) -> Target:
    @cache
    def server() -> FleetServer:
        registry = FakeRegistry(box("box-7"))
        doors = Doors(FakeOpener(registry), policy=everybody_may_all())
        return FleetServer(
            registry, doors.door, everybody_may_all(), who({TOKEN: "robot"}), doors.logins, doors.records
        )

    def run(data: bytes) -> None:
        fed = Fed(data)

        async def serve() -> None:
            await server().handle(fed.conn)

        with contextlib.suppress(StreamError):
            loop.run(serve)
        check_answer(data, fed)

    review = (
        b'{"kind":"SelfSubjectAccessReview","apiVersion":"authorization.k8s.io/v1",'
        b'"spec":{"resourceAttributes":{"verb":"get","resource":"pods"}}}'
    )
    pods = b"/api/v1/namespaces/default/pods"
    seeds = [
        _get(path, AUTH)
        for path in (
            b"/api/v1/nodes?limit=5&resourceVersion=0&resourceVersionMatch=NotOlderThan",
            pods + b"?labelSelector=a%3Db&fieldSelector=status.phase%3DRunning",
            pods + b"/box-7", pods + b"/box-7/log?container=host&tailLines=1&sinceTime=2026-01-01T00:00:00Z",
            b"/apis", b"/openapi/v3/api/v1", b"/version",
            pods + b"/box-7/exec?command=sh&stdin=true&stdout=true&container=host",
            b"/api/v1/events?watch=1&timeoutSeconds=1",
            b"/api/v1/nodes?includeObject=None",
        )
    ]  # fmt: skip
    seeds += [
        _get(b"/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", AUTH, b"POST", review),
        _get(b"/api/v1/nodes", AUTH + b"Accept: application/json;as=Table;v=v1;g=meta.k8s.io\r\n"),
        _get(b"/api/v1/nodes", AUTH + b"Impersonate-User: ben\r\nImpersonate-Group: a\r\n"),
        _get(b"/api/v1/nodes"),
    ]  # fmt: skip
    words = (
        *HTTP_WORDS,
        AUTH,
        b"watch=true",
        b"&labelSelector=a+in+(b,c)",
        b"&fieldSelector=",
        b"/apis/metrics.k8s.io/v1beta1/nodes",
        b"Impersonate-Uid: x\r\n",
    )
    return Target(name="fleet", seeds=seeds, run=run, words=words)


def _http2_heads() -> Target:
    class Stream:
        def __init__(self, data: bytes) -> None:
            lines = [line.partition(b"=") for line in data.split(b"\n")]
            self.headers = [(name, value) for name, _, value in lines]

    def run(data: bytes) -> None:
        from typing import cast

        request = request_of(cast("Http2Stream", Stream(data)))
        assert isinstance(request.path, str)
        assert isinstance(request.query, list)

    seeds = [b":method=GET\n:path=/api/v1/nodes?a=b\n:authority=x:443\naccept=a", b":method=CONNECT\n:authority=x:1"]
    return Target(
        name="http2-heads", seeds=seeds, run=run, allowed=(HttpError,), words=(b":path=", b"http://[", b"%41")
    )


class _Refusing:
    async def open(self, live: LiveOpen) -> Stream:
        raise OpenRefused("refused", Code.REFUSED)


class _Nobody:
    def is_known(self, name: str) -> bool:
        return False

    def is_connected(self, name: str) -> bool:
        return False


def _connect(loop: Loop) -> Target:
    @cache
    def front() -> ConnectFrontend:
        doors = Doors(_Refusing(), Router(_Nobody()))
        return ConnectFrontend(doors.door, who({TOKEN: "robot"}), doors.logins, deadline_s=1.0)

    def run(data: bytes) -> None:
        fed = Fed(data)

        async def serve() -> None:
            await front().handle_tls(fed.conn)

        with contextlib.suppress(StreamError):
            loop.run(serve)
        check_answer(data, fed)

    auth = b"Proxy-Authorization: Bearer t0ken\r\n"
    basic = b"Proxy-Authorization: Basic Ym94LTcubG9uZ2xpbmU6dDBrZW4=\r\n"
    seeds = [
        b"CONNECT " + name + b" HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n"
        for name, head in (
            (b"box-7:22", auth), (b"127.0.0.1:6443", basic), (b"[fd00::1]:80", auth), (b"x.box-7.longline:1", b""),
        )
    ]  # fmt: skip
    return Target(name="connect", seeds=seeds, run=run, words=(*HTTP_WORDS, auth, basic, b"CONNECT ", b".longline:"))


def _authority() -> Target:
    def run(data: bytes) -> None:
        text = data.decode("latin-1")
        agent_meant(text)
        for parse in (parse_authority, parse_target):
            with contextlib.suppress(OpenRefused):
                parse(text)

    seeds = [
        b"box-7:22",
        b"box-7:ssh",
        b"10.1.0.9:443",
        b"[fd00::9]:443",
        b"db.box-7.longline:5432",
        b"fd00--9.box-7.longline:1",
        b"a.b.svc.cluster.local:80",
    ]
    return Target(
        name="authority", seeds=seeds, run=run, words=(b":", b"[", b"]", b"--", b".longline", b"::ffff:", b"%eth0")
    )


def _socks(loop: Loop) -> Target:
    @cache
    def front() -> SocksFrontend:
        doors = Doors(_Refusing(), Router(_Nobody()))
        return SocksFrontend(doors.door, who({TOKEN: "robot"}), doors.logins, deadline_s=1.0)

    def run(data: bytes) -> None:
        fed = Fed(data)

        async def serve() -> None:
            await front().handle(fed.conn)

        loop.run(serve)

    hello = b"\x05\x01\x02\x01\x02me\x05t0ken"
    hosts = (b"\x03\x05box-7", b"\x01\x7f\0\0\1", b"\x04" + bytes(16), b"\x03\0")
    return Target(
        name="socks", seeds=[hello + b"\x05\x01\x00" + host + b"\0\x16" for host in hosts], run=run, words=(hello,)
    )


def _refusing(
    target: TcpTarget, deadline_s: float, principal: Principal
) -> contextlib.AbstractAsyncContextManager[Conn]:
    raise OpenRefused(f"{target} is not dialled within {deadline_s} s, whoever {principal} is")


def _kubelet(loop: Loop) -> Target:
    @cache
    def kubelet() -> HostKubelet:
        log = Path(tempfile.gettempdir()) / "longline-fuzz.log"
        return HostKubelet("box-7", HostSettings(files=[log]), Records(), _refusing)

    def run(data: bytes) -> None:
        fed = Fed(data)
        loop.run(lambda: kubelet().serve(fed, ANN))
        check_answer(data, fed)

    logs = b"/containerLogs/default/box-7/longline-fuzz.log?"
    seeds = [
        _get(path)
        for path in (
            b"/healthz",
            b"/pods",
            b"/recordings/default/box-7?id=1",
            b"/exec/default/box-7/host?command=a",
            logs + b"tailLines=1&sinceSeconds=5&limitBytes=3&timestamps=true&stream=All",
            logs + b"sinceTime=2026-01-01T00%3A00%3A00Z",
        )
    ]
    upgrade = b"Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io\r\n"
    seeds.append(_get(b"/portForward/default/box-7", upgrade, b"POST"))
    return Target(
        name="kubelet",
        seeds=seeds,
        run=run,
        words=(*HTTP_WORDS, b"follow=true", b"0001-01-01T00:00:00%2B23:59", b"9999-12-31T23:59:59-23:59"),
    )


def _exec() -> Target:
    def run(data: bytes) -> None:
        head, _, headers = data.partition(b"\n")
        pairs = [line.decode("latin-1").partition(": ")[::2] for line in headers.split(b"\n") if line]
        from tunnel.aio.http.http1 import Headers, Request

        request = check_request(Request("GET", head.decode("latin-1"), Headers(pairs)))
        ExecRequest.read(request)
        negotiate(request)

    seeds = [
        (b"/exec/default/box-7/host?command=sh&command=-c&output=1&error=1&input=1&tty=1\n"
        b"upgrade: websocket\nconnection: upgrade\nsec-websocket-key: a\nsec-websocket-version: 13\n"
        b"sec-websocket-protocol: v5.channel.k8s.io"),
        b"/exec/a/b/c?command=ls&output=true\nx-longline-accounts: a,b\nx-longline-record: 1",
    ]  # fmt: skip
    return Target(
        name="exec", seeds=seeds, run=run, allowed=(HttpError, KubeletError), words=(b"command=", b"&", b"%00", b"%ff")
    )


def _spdy_seeds() -> list[bytes]:
    import struct
    import zlib

    from tunnel.kubeapi.spdy_dictionary import DICTIONARY

    deflate = zlib.compressobj(zdict=DICTIONARY)

    def opened(number: int, kind: bytes) -> bytes:
        pairs = [(b"streamtype", kind), (b"port", b"80"), (b"requestid", b"0")]
        text = struct.pack(">I", len(pairs)) + b"".join(
            struct.pack(">I", len(word)) + word for pair in pairs for word in pair
        )
        block = struct.pack(">IIH", number, 0, 0) + deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH)
        return struct.pack(">II", 0x80030001, len(block)) + block

    both = opened(1, b"error") + opened(3, b"data")
    ping = bytes.fromhex("80030006 00000004 00000001")
    return [
        both + struct.pack(">II", 3, 5) + b"hello",
        both + ping + struct.pack(">II", 3, 1 << 24),
        ping * 3,
        bytes.fromhex("80030007 00000008") + bytes(8),
    ]


def _spdy() -> Target:
    def run(data: bytes) -> None:
        receiver = SpdyReceiver()
        for at in range(0, len(data), 97):
            for _ in receiver.receive(data[at : at + 97]):
                pass

    return Target(
        name="spdy",
        seeds=_spdy_seeds(),
        run=run,
        allowed=(SpdyError,),
        words=(b"\x80\x03\x00\x01", b"\x80\x03\x00\x03", b"\0\0\0\x03"),
    )


def _port_forward(loop: Loop) -> Target:
    from edge_agent.hostkubelet.audit import RequestRecord

    def record(target: str) -> RequestRecord:
        return RequestRecord(
            audit=Records(), action="portforward", principal=ANN, trace_id="", container="", command=None,
            target=target,
            why_ended=lambda: None,
        )  # fmt: skip

    def run(data: bytes) -> None:
        fed = Fed(data)

        async def serve() -> None:
            await PortForward(BareTransport(fed, b""), _refusing, record, pod="box-7").run()

        loop.run(serve)

    return Target(name="port-forward", seeds=_spdy_seeds(), run=run, allowed=(SpdyError, StreamError))
