"""Dialling: what is said when it fails, through which proxy it goes, and how many TCP connections it makes."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from datetime import timedelta

import grpc.aio
import pytest

from protos import tunnel_pb2
from tests.support import waits
from tests.support.carriers import AGENT, DIRECT, Cloud, cloud, echo
from tests.support.connect_proxy import connect_proxy, relay
from tests.support.pki import Authority
from tunnel.aio.carriers.carrier import Carrier, CarrierLost, DialOptions, dial_carrier
from tunnel.aio.carriers.carrier_errors import EnrollmentRefused
from tunnel.aio.carriers.enrollment import call_renew
from tunnel.aio.carriers.limits import CarrierLimits
from tunnel.aio.identity.tls_material import ClientTls


async def _hold(carrier: Carrier, _uri: str, _spki: bytes) -> None:
    """Says hello and then waits for the carrier's end."""
    await carrier.write(b"hello")
    while await carrier.read() is not None:
        pass


async def _lost(awaitable: Awaitable[object], within_s: float = 5.0) -> CarrierLost:
    async with asyncio.timeout(waits.scaled_s(within_s)):
        with pytest.raises(CarrierLost) as caught:
            await awaitable
    return caught.value


# Dialling


async def test_nothing_listens() -> None:
    async with cloud(_hold) as server:
        tls = server.tls()
    lost = await _lost(dial_carrier("127.0.0.1:1", tls, DIRECT))
    assert lost.text == "127.0.0.1:1: connection refused: nothing listens there"


@pytest.mark.parametrize("address", ["unix:/tmp/x", "host", "host:", ":443", "a:b:443", "host:70000", "[::1]", ""])
async def test_what_is_no_address_is_refused_before_anything_is_tried(address: str) -> None:
    async with cloud(_hold) as server:
        assert "is not an address" in (await _lost(server.dial(address=address or " "))).text


async def test_a_server_that_accepts_and_says_nothing() -> None:
    async def silent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0)
        kept.append(writer)

    kept: list[asyncio.StreamWriter] = []
    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with cloud(_hold) as server:
        address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        lost = await _lost(dial_carrier(address, server.tls(), DialOptions(timeout_s=0.5, proxy="none")), within_s=10)
        assert "no answer" in lost.text
    for writer in kept:
        writer.transport.abort()
    listener.close()


async def test_a_missing_certificate_file_is_named(tmp_path: object) -> None:
    from pathlib import Path

    from tunnel.aio.identity.tls_material import ClientTls

    missing = Path(str(tmp_path)) / "agent.crt"
    tls = ClientTls(certificate=missing, key=b"", ca=b"")
    assert str(missing) in (await _lost(dial_carrier("127.0.0.1:1", tls, DIRECT))).text


# Proxies


async def test_an_explicit_proxy_is_used() -> None:
    async with cloud(echo) as server, connect_proxy() as proxy:
        options = DialOptions(proxy=f"http://user:secret@127.0.0.1:{proxy.port}")
        assert "secret" not in repr(options)
        carrier = await server.dial(options=options)
        await carrier.write(b"through")
        assert await carrier.read() == b"through"
        assert proxy.requests == [server.address]
        assert proxy.credentials == ["Basic dXNlcjpzZWNyZXQ="]
        carrier.close()


async def test_our_own_choice_of_a_proxy_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC itself would take `grpc_proxy` and `http_proxy`, and has exceptions of another kind."""
    async with cloud(echo) as server, connect_proxy() as proxy:
        url = f"http://127.0.0.1:{proxy.port}"
        for name in ("grpc_proxy", "http_proxy"):
            monkeypatch.setenv(name, url)
        (await server.dial(options=DialOptions())).close()
        assert proxy.requests == []
        monkeypatch.setenv("HTTPS_PROXY", url)
        (await server.dial(options=DialOptions())).close()
        assert proxy.requests == [server.address]
        (await server.dial(options=DialOptions(proxy="none"))).close()
        monkeypatch.setenv("no_proxy", "127.0.0.0/8")
        (await server.dial(options=DialOptions(proxy=url))).close()
        (await server.dial(options=DialOptions())).close()
        assert proxy.requests == [server.address]
        # The end of a text is no name below another one, and an exception of gRPC's.
        monkeypatch.setenv("no_proxy", ".0.0.1")
        (await server.dial(options=DialOptions())).close()
        assert proxy.requests == [server.address] * 2


async def test_a_proxy_that_is_away_is_named_and_not_the_server() -> None:
    async with cloud(echo) as server:
        lost = await _lost(server.dial(options=DialOptions(proxy="127.0.0.1:1")), within_s=10)
    hop = "no TCP connection to the proxy 127.0.0.1:1 (from [cloud] proxy): 127.0.0.1: connection refused"
    assert lost.text == f"{server.address}: {hop}"


async def test_the_clock_of_the_server_comes_with_every_answer() -> None:
    seen: list[timedelta] = []
    options = DialOptions(proxy="none", on_clock=seen.append)
    async with cloud(echo) as server:
        (await server.dial(options=options)).close()
        with pytest.raises(EnrollmentRefused):
            await call_renew(server.address, server.tls(), tunnel_pb2.RenewRequest(), options)
    assert len(seen) == 2
    assert all(abs(ahead) < timedelta(seconds=5) for ahead in seen)


async def test_a_proxy_that_refuses_is_named() -> None:
    async with cloud(echo) as server, connect_proxy("403 Forbidden by policy") as proxy:
        url = f"http://user:secret@127.0.0.1:{proxy.port}"
        lost = await _lost(server.dial(options=DialOptions(proxy=url)), within_s=10)
        assert f"the proxy 127.0.0.1:{proxy.port} (from [cloud] proxy) refuses" in lost.text
        assert "403 Forbidden by policy" in lost.text
        assert "secret" not in lost.text


async def test_a_proxy_of_another_kind_is_refused_without_repeating_it() -> None:
    async with cloud(echo) as server:
        lost = await _lost(server.dial(options=DialOptions(proxy="socks5://user:secret@h:1")))
        assert "[cloud] proxy names a SOCKS proxy (socks5://)" in lost.text
        assert "secret" not in lost.text


# TCP connections


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What only the garbage collector would close stays open: a box at rest may not run it for hours."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def _channels() -> list[object]:
    """Channels that something holds; gRPC dials again and again for them, even when they are closed."""
    return [held for held in gc.get_objects() if isinstance(held, grpc.aio.Channel)]


def _stranger(server: Cloud) -> ClientTls:
    return server.tls(Authority("stranger").issue(uris=[AGENT]))


def _user(server: Cloud) -> ClientTls:
    return server.tls(server.authority.issue(uris=["spiffe://longline/user/ann"]))


@pytest.mark.parametrize(
    ("tls", "limits", "said", "connections"),
    [
        (_user, None, "that takes role 'agent'", 1),
        (Cloud.tls, CarrierLimits(max_silent=0), "said nothing: try later", 1),
        # gRPC has no word for it, so the way is walked again to find one.
        (_stranger, None, "does not know this box's certificate", 2),
    ],
)
@pytest.mark.usefixtures("no_collector")
async def test_a_refused_attempt_is_one_connection_and_leaves_none(
    tls: Callable[[Cloud], ClientTls], limits: CarrierLimits | None, said: str, connections: int
) -> None:
    async with cloud(echo, limits=limits) as server, relay(server.server.ports[0]) as middle:
        shown = tls(server)
        for attempt in range(1, 6):
            with pytest.raises(CarrierLost, match=said):
                await dial_carrier(f"127.0.0.1:{middle.port}", shown, DIRECT)
            await waits.eventually(lambda: not middle.open and not _channels())
            assert middle.joined == attempt * connections


@pytest.mark.usefixtures("no_collector")
async def test_a_closed_carrier_leaves_no_connection_though_it_is_still_held() -> None:
    kept: list[Carrier] = []
    async with cloud(_hold) as server, relay(server.server.ports[0]) as middle:
        for attempt in range(1, 6):
            carrier = await dial_carrier(f"127.0.0.1:{middle.port}", server.tls(), DIRECT)
            assert await carrier.read() == b"hello"
            if attempt % 2:
                await carrier.finish()
                assert await carrier.read() is None
            carrier.close()
            await _lost(carrier.read())
            kept.append(carrier)
            await waits.eventually(lambda: not middle.open)
            assert middle.joined == attempt


@pytest.mark.usefixtures("no_collector")
async def test_a_refused_renewal_is_one_connection_and_leaves_none() -> None:
    async with cloud(echo) as server, relay(server.server.ports[0]) as middle:
        with pytest.raises(EnrollmentRefused, match="does not renew certificates"):
            await call_renew(f"127.0.0.1:{middle.port}", server.tls(), tunnel_pb2.RenewRequest(), DIRECT)
        await waits.eventually(lambda: not middle.open)
        assert middle.joined == 1


@pytest.mark.usefixtures("no_collector")
async def test_a_renewal_that_fails_leaves_no_connection() -> None:
    async with cloud(echo) as server, relay(server.server.ports[0]) as middle:
        for attempt in range(1, 4):
            with pytest.raises(CarrierLost, match="does not know this box's certificate"):
                await call_renew(f"127.0.0.1:{middle.port}", _stranger(server), tunnel_pb2.RenewRequest(), DIRECT)
            await waits.eventually(lambda: not middle.open and not _channels())
            assert middle.joined == attempt * 2


def _dial(tls: ClientTls) -> Coroutine[None, None, object]:
    return dial_carrier("127.0.0.1:1", tls, DIRECT)


def _renew(tls: ClientTls) -> Coroutine[None, None, object]:
    return call_renew("127.0.0.1:1", tls, tunnel_pb2.RenewRequest(), DIRECT)


@pytest.mark.parametrize("attempt", [_dial, _renew])
@pytest.mark.usefixtures("no_collector")
async def test_nothing_dials_on_where_nothing_listens(
    attempt: Callable[[ClientTls], Coroutine[None, None, object]],
) -> None:
    async with cloud(echo) as server:
        tls = server.tls()
    with pytest.raises(CarrierLost, match="nothing listens there"):
        await attempt(tls)
    await waits.eventually(lambda: not _channels())
