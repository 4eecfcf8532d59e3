"""Reaching a kubelet that demands a client certificate, over real TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from edge_agent.config import KubeletConfig
from edge_agent.real_kubelet import dial_kubelet
from tests.support.pki import Authority, Issued
from tunnel.aio.http.http1 import ClientConnection
from tunnel.aio.process.config import ServerAddress
from tunnel.core.wire.errors import Code, OpenRefused

pytestmark = pytest.mark.may_block("the test itself writes keys and loads the server's")


class Cluster:
    """A CA, a kubelet's certificate and the box's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority()
        self.ca = folder / "ca.crt"
        self.ca.write_bytes(self.authority.pem)
        self.client_cert, self.client_key = self.authority.issue(common_name="longline").write(folder, "client")

    def server_context(self, issued: Issued) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*issued.write(self.folder, "kubelet"))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.ca)
        return context

    def config(self, port: int) -> KubeletConfig:
        return KubeletConfig(
            address=ServerAddress(f"127.0.0.1:{port}"),
            client_cert=self.client_cert,
            client_key=self.client_key,
            ca=self.ca,
        )


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    subject = writer.get_extra_info("peercert")["subject"][0][0][1]
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(subject)}\r\n\r\n{subject}".encode())
    await writer.drain()
    writer.close()


@asynccontextmanager
async def kubelet(context: ssl.SSLContext | None) -> AsyncIterator[int]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def refusal(config: KubeletConfig, deadline_s: float = 5.0) -> OpenRefused:
    with pytest.raises(OpenRefused) as raised:
        await dial_kubelet(config, deadline_s)
    return raised.value


async def test_both_sides_are_authenticated(cluster: Cluster) -> None:
    # As kubelets do it: the certificate names the node and no address.
    async with kubelet(cluster.server_context(cluster.authority.issue(hosts=["node-7"]))) as port:
        conn = await dial_kubelet(cluster.config(port), 5.0)
        http = ClientConnection(conn)
        response = await http.request("GET", "/healthz", [("host", "kubelet")])
        assert (response.status, await http.read_body(100)) == (200, b"longline")
        await conn.aclose()
        await conn.lost()


async def test_a_kubelet_of_another_cluster_is_refused(cluster: Cluster) -> None:
    foreign = Authority("another CA").issue(hosts=["node-7"])
    async with kubelet(cluster.server_context(foreign)) as port:
        refused = await refusal(cluster.config(port))
    assert refused.code is Code.UNREACHABLE
    assert f"its certificate is not vouched for by {cluster.ca}" in refused.text


async def test_certificates_that_are_over_are_named_with_the_clock_of_the_box(cluster: Cluster) -> None:
    over = timedelta(days=-1)
    async with kubelet(cluster.server_context(cluster.authority.issue(hosts=["node-7"], ends_in=over))) as port:
        text = (await refusal(cluster.config(port))).text
        assert "certificate has expired; this machine's clock says 20" in text
        cluster.authority.issue(ends_in=over).write(cluster.folder, "client")
        text = (await refusal(cluster.config(port))).text
    assert f"{cluster.client_cert} expired on 20" in text
    assert "this machine's clock says 20" in text


async def test_beyond_loopback_the_name_counts(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_agent.real_kubelet.is_loopback", lambda host: False)
    async with kubelet(cluster.server_context(cluster.authority.issue(hosts=["node-7"]))) as port:
        assert "not valid for '127.0.0.1'" in (await refusal(cluster.config(port))).text
    async with kubelet(cluster.server_context(cluster.authority.issue(hosts=["127.0.0.1"]))) as port:
        conn = await dial_kubelet(cluster.config(port), 5.0)
        await conn.aclose()
        await conn.lost()


async def test_nobody_listens(cluster: Cluster) -> None:
    async with kubelet(None) as port:
        pass
    refused = await refusal(cluster.config(port))
    assert (refused.code, refused.text) == (Code.REFUSED, f"kubelet at 127.0.0.1:{port}: connection refused")


async def test_one_that_does_not_speak_tls(cluster: Cluster) -> None:
    async def shout(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-hello\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(shout, "127.0.0.1", 0)
    async with server:
        refused = await refusal(cluster.config(server.sockets[0].getsockname()[1]))
    assert refused.code is Code.UNREACHABLE
    assert "TLS failed" in refused.text


async def test_one_that_never_answers(cluster: Cluster) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        refused = await refusal(cluster.config(server.sockets[0].getsockname()[1]), 0.2)
    assert (refused.code, refused.text.partition(": ")[2]) == (Code.DEADLINE, "no answer within 0.2 s")


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: path.write_text("no PEM")])
@pytest.mark.parametrize("which", ["client_cert", "client_key", "ca"])
async def test_files_that_cannot_be_used(cluster: Cluster, which: str, spoil: Callable[[Path], object]) -> None:
    spoilt = cluster.folder / "spoilt.pem"
    config = KubeletConfig(
        client_cert=spoilt if which == "client_cert" else cluster.client_cert,
        client_key=spoilt if which == "client_key" else cluster.client_key,
        ca=spoilt if which == "ca" else cluster.ca,
    )
    spoilt.write_bytes(b"x")
    spoil(spoilt)
    refused = await refusal(config)
    assert refused.code is Code.NO_SERVICE
    assert "spoilt.pem" in refused.text
