"""The whole proxy of a node by TLS, in front of an API server that looks at certificates, as clients come to it."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_agent.autonomy.kept.feeds import KeptLimits
from edge_agent.autonomy.operator.operator_api import OperatorSettings
from edge_agent.autonomy.proxy import ApiProxy, ProxySettings
from edge_agent.autonomy.serving import CERTIFICATE, NO_CHECK_TIME
from tests.edge_agent.autonomy.kube import Kube
from tests.edge_agent.autonomy.operator.test_operator_api import Book
from tests.support.cgroup2 import own_cgroup
from tests.support.http2_client import http2_client
from tests.support.pki import Authority, Issued
from tests.support.waits import eventually
from tunnel.aio.http.http1 import ClientConnection
from tunnel.aio.process.config import HostPort, ServerAddress
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.listener import Listener
from tunnel.aio.sockets.tls_client import dial_tls

NODE, GROUP = "system:node:n", "system:nodes"
DAY = dt.timedelta(days=1)


@dataclass
class Said:
    """An answer, by either version of HTTP."""

    status: int
    body: bytes

    @property
    def names(self) -> list[str]:
        return [item["metadata"]["name"] for item in json.loads(self.body)["items"]]


@dataclass
class Front:
    """An API server of this process, and clients of whatever proxy is in front of it."""

    folder: Path
    """Of certificates."""
    kube: Kube = field(default_factory=Kube)
    authority: Authority = field(default_factory=Authority)
    port: int = 0
    """Of the proxy."""
    state: Path = field(init=False)
    """The folder in which the proxy has its own."""
    certificate: Path = field(init=False)
    """The kubelet's."""
    key: Path = field(init=False)

    async def start_kube(self) -> None:
        self.issue(ends_in=DAY)
        (self.folder / "ca.crt").write_bytes(self.authority.pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*self.authority.issue(hosts=["127.0.0.1"]).write(self.folder, "api"))
        context.verify_mode = ssl.CERT_OPTIONAL
        context.verify_flags |= NO_CHECK_TIME
        context.load_verify_locations(cadata=self.authority.pem.decode())
        self.kube.listener = Listener("kube", self._serve_kube)
        await self.kube.listener.listen_tcp("127.0.0.1:0", context)

    def issue(self, ends_in: dt.timedelta) -> Issued:
        """The kubelet has another certificate."""
        issued = self.authority.issue(common_name=NODE, organization=GROUP, ends_in=ends_in)
        self.certificate, self.key = issued.write(self.folder, "kubelet")
        return issued

    def context(self, shown: tuple[Path, Path] | None, protocol: str) -> ssl.SSLContext:
        """A client's, with the certificate that it shows."""
        context = ssl.create_default_context(cadata=(self.state / CERTIFICATE).read_text())
        context.set_alpn_protocols([protocol])
        if shown is not None:
            context.load_cert_chain(*shown)
        return context

    @asynccontextmanager
    async def client(self, shown: tuple[Path, Path] | None = None) -> AsyncIterator[ClientConnection]:
        """A connection by HTTP/1.1."""
        context = self.context(shown, "http/1.1")
        conn = await dial_tls("127.0.0.1", self.port, context, handshake_timeout_s=5)
        try:
            yield ClientConnection(conn)
        finally:
            conn.reset()

    async def ask(
        self, method: str, target: str, headers: Sequence[tuple[str, str]] = (), body: bytes = b"", *,
        shown: tuple[Path, Path] | None = None, version: int = 1,
    ) -> Said:  # fmt: skip
        """Ask by a connection of its own."""
        async with asyncio.timeout(20), AsyncExitStack() as stack:
            if version == 1:
                http = await stack.enter_async_context(self.client(shown))
                head = await http.request(method, target, [("host", "x"), *headers], body)
                return Said(head.status, await http.read_body(1 << 24))
            context = self.context(shown, "h2")
            http2 = await stack.enter_async_context(http2_client(self.port, context))
            came = await http2.ask(target, *headers, method=method, body=body or None)
            await http2.until(lambda: came.ended or came.reset is not None)
            return Said(came.status if came.headers else 0, came.body)

    async def raw(self, sent: bytes) -> bytes:
        """All that comes back for these bytes, until the proxy ends the connection or has nothing to say."""
        context = self.context(None, "http/1.1")
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context)
        writer.write(sent)
        came = b""
        try:
            async with asyncio.timeout(0.7):
                while chunk := await reader.read(1 << 16):
                    came += chunk
        except (TimeoutError, ConnectionError):
            pass
        writer.transport.abort()
        return came

    async def as_kubelet(self, method: str, target: str, body: bytes = b"", **headers: str) -> Said:
        """Ask with the kubelet's certificate."""
        items = [(name.replace("_", "-"), value) for name, value in headers.items()]
        return await self.ask(method, target, items, body, shown=(self.certificate, self.key))

    # Internal

    async def _serve_kube(self, conn: Conn) -> None:
        shown: dict[str, Any] = conn.transport.get_extra_info("peercert") or {}
        is_over = bool(shown) and ssl.cert_time_to_seconds(shown["notAfter"]) < dt.datetime.now(dt.UTC).timestamp()
        self.kube.refuses_node = self.kube.refuses_node if not shown else is_over
        await self.kube.serve(conn, as_node=bool(shown))


@dataclass
class Proxied(Front):
    """The same with a proxy in this process."""

    grace_s: float = 3600.0
    cgroup: Path = field(default_factory=lambda: own_cgroup() or Path("/none"))
    proxy: ApiProxy = field(init=False)
    listener: Listener = field(init=False)

    async def start(self) -> None:
        settings = ProxySettings(
            server=ServerAddress(f"127.0.0.1:{self.kube.listener.ports[0]}"), ca=self.folder / "ca.crt",
            client_cert=self.certificate, client_key=self.key, limits=KeptLimits(),
            kubelet_cgroup=self.cgroup, grace_s=self.grace_s, addresses=[HostPort("127.0.0.1:0")], shared_token=None,
            operator=OperatorSettings(allow=frozenset()), kubelet=ServerAddress("127.0.0.1:10250"),
        )  # fmt: skip
        self.state = self.folder
        self.proxy = ApiProxy("n", settings, self.state, Book(), lambda _words: None)
        self.listener = Listener("proxy", self.proxy.handle)
        await self.proxy.open(self.listener, "127.0.0.1:0")
        self.port = self.listener.ports[0]
        await self.proxy.api.uplink.known()

    async def stop(self) -> None:
        self.proxy.close()
        await self.listener.aclose()
        await self.proxy.aclose()

    async def cut(self) -> None:
        self.kube.cut()
        self.proxy.api.uplink.doubt()
        await eventually(lambda: not self.proxy.api.uplink.is_up)


@asynccontextmanager
async def proxied(folder: Path, **more: Any) -> AsyncIterator[Proxied]:
    """Both, up."""
    made = Proxied(folder, **more)
    await made.start_kube()
    await made.start()
    try:
        await eventually(lambda: made.proxy.api.uplink.is_up)
        yield made
    finally:
        await made.stop()
        await made.kube.listener.aclose()
