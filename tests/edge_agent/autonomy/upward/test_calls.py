"""Lists and watches share a connection where the API server can do that, and have one each where it cannot."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edge_agent.autonomy.upward import calls as calls_module
from edge_agent.autonomy.upward.calls import Calls
from edge_agent.autonomy.upward.lines import Lines
from tests.support.pki import Authority
from tests.support.waits import eventually
from tunnel.aio.http.exchange import Exchange
from tunnel.aio.http.http1 import HttpError, Refusal, Request
from tunnel.aio.http.server import HttpServer
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.listener import Listener
from tunnel.aio.sockets.tls_client import dial_tls
from tunnel.core.wire.errors import StreamError


@dataclass
class Api:
    """An API server, and connections to it."""

    protocols: list[str]
    listener: Listener = field(init=False)
    client: ssl.SSLContext = field(init=False)
    lines: Lines = field(init=False)
    dials: int = 0
    status: int = 200
    is_gone: bool = False
    connections: set[Conn] = field(default_factory=set)

    async def serve(self, conn: Conn, exchange: Exchange, request: Request) -> None:
        exchange.trust()
        self.connections.add(conn)
        await exchange.start(self.status)
        await exchange.send(request.target.encode())
        if request.target.startswith("/watch"):
            await exchange.wait_client_gone()
        await exchange.finish()

    async def dial(self, *, http2: bool) -> Conn:
        self.dials += 1
        await asyncio.sleep(0.05)
        if self.is_gone:
            raise OSError("nobody there")
        self.client.set_alpn_protocols(["h2", "http/1.1"] if http2 else ["http/1.1"])
        return await dial_tls("127.0.0.1", self.listener.ports[0], self.client, handshake_timeout_s=5)


@asynccontextmanager
async def api(folder: Path, protocols: list[str]) -> AsyncIterator[tuple[Api, Calls]]:
    made = Api(protocols)
    authority = Authority()
    issued = authority.issue(hosts=["127.0.0.1"])
    (folder / "it.pem").write_bytes(issued.certificate_pem + issued.key_pem)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "it.pem")
    server.set_alpn_protocols(protocols)
    made.client = ssl.create_default_context(cadata=authority.pem.decode())
    http = HttpServer(made.serve, _render, lambda _peer: True)
    made.listener = Listener("api", http.handle)
    await made.listener.listen_tcp("127.0.0.1:0", server)
    made.lines = Lines(made.dial)
    calls = Calls(made.lines)
    try:
        yield made, calls
    finally:
        await calls.aclose()
        await made.listener.aclose()


def _render(error: HttpError) -> Refusal:
    return Refusal("text/plain", error.text.encode())


async def watch(stack: AsyncExitStack, calls: Calls, name: str) -> None:
    """A watch, open as long as the stack."""
    head, body = await stack.enter_async_context(calls.get("api", f"/watch/{name}", []))
    assert head.status == 200
    assert await body.read_chunk() == f"/watch/{name}".encode()


@pytest.mark.parametrize(("protocols", "connections"), [(["h2", "http/1.1"], 1), (["http/1.1"], 20)])
async def test_watches_share_a_connection_where_that_can_be(
    tmp_path: Path, protocols: list[str], connections: int
) -> None:
    async with api(tmp_path, protocols) as (made, calls), AsyncExitStack() as stack:
        async with asyncio.TaskGroup() as tasks:
            for number in range(20):
                tasks.create_task(watch(stack, calls, str(number)))
        assert len(made.connections) == connections
        assert made.dials == connections + (connections > 1)


async def test_a_full_connection_is_followed_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunnel.aio.http.http2_client.MAX_STREAMS", 2)
    async with api(tmp_path, ["h2"]) as (_, calls), AsyncExitStack() as stack:
        for number in range(5):
            await watch(stack, calls, str(number))
        assert calls.connections == 3


async def test_an_old_connection_takes_nothing_new_and_ends_with_its_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api(tmp_path, ["h2"]) as (made, calls), AsyncExitStack() as stack:
        async with AsyncExitStack() as old:
            await watch(old, calls, "old")
            monkeypatch.setattr(calls_module, "FRESH_S", 0.0)
            await watch(stack, calls, "new")
            assert (calls.connections, made.dials) == (2, 2)
        await eventually(lambda: calls.connections == 1)


@pytest.mark.parametrize("protocols", [["h2"], ["http/1.1"]])
async def test_an_identity_that_is_shown_anew_has_a_new_connection(tmp_path: Path, protocols: list[str]) -> None:
    async with api(tmp_path, protocols) as (made, calls):
        async with calls.get("api", "/", []):
            pass
        dials = made.dials
        made.lines.on_answer = lambda status: made.lines.renew() if status == 401 else None
        made.status = 401
        async with calls.get("api", "/", []) as (head, _):
            assert head.status == 401
        made.status = 200
        async with calls.get("api", "/", []) as (head, _):
            assert head.status == 200
        assert made.dials == dials + 1 + (protocols != ["h2"]), "lines of HTTP/1.1 hear of answers from their making on"


async def test_who_waits_for_a_dial_that_fails_does_not_try_it_again(tmp_path: Path) -> None:
    async with api(tmp_path, ["h2"]) as (made, calls):
        made.is_gone = True

        async def ask() -> None:
            with pytest.raises(OSError, match="nobody there"):
                async with calls.get("api", "/", []):
                    pass

        async with asyncio.TaskGroup() as tasks:
            for _ in range(20):
                tasks.create_task(ask())
        assert made.dials == 1
        await ask()
        assert made.dials == 2


async def test_a_cut_ends_all_and_the_next_dials(tmp_path: Path) -> None:
    async with api(tmp_path, ["h2"]) as (made, calls), AsyncExitStack() as stack:
        _, body = await stack.enter_async_context(calls.get("api", "/watch", []))
        await body.read_chunk()
        calls.cut()
        with pytest.raises(StreamError):
            await body.read_chunk()
        async with calls.get("api", "/", []) as (head, _):
            assert head.status == 200
        assert made.dials == 2
