from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.carriers import AGENT, cloud, echo
from tests.support.connect_proxy import connect_proxy
from tests.support.pki import Authority, Issued
from tunnel.aio.carriers import diagnose as diagnose_module
from tunnel.aio.carriers.diagnose import find_fault
from tunnel.aio.identity.tls_material import ClientTls
from tunnel.aio.sockets.address import split_address
from tunnel.aio.sockets.http_proxy import parse_proxy
from tunnel.core.wire.faults import BOX_CERTIFICATE_TIME

DAY = dt.timedelta(days=1)
AUTHORITY = Authority()
BOX = AUTHORITY.issue(uris=[AGENT])


def _tls(box: Issued = BOX, trusts: Authority = AUTHORITY) -> ClientTls:
    return ClientTls(certificate=box.certificate_pem, key=box.key_pem, ca=trusts.pem)


async def diagnose(address: str, tls: ClientTls, proxy: str | None = None) -> str:
    """The fault."""
    given = parse_proxy(proxy, "https_proxy") if proxy is not None else None
    fault = await find_fault(address, tls, given)
    return "all is in order" if fault is None else fault.text


@contextlib.asynccontextmanager
async def _tls_server(tmp_path: Path, shown: Issued, *, alpn: str = "h2") -> AsyncIterator[str]:
    """A server of Python's own TLS that asks for no certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*shown.write(tmp_path, "server"))
    context.set_alpn_protocols([alpn])

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"settings")
        await asyncio.sleep(0)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def test_nothing_is_wrong() -> None:
    async with cloud(echo) as server:
        assert "in order" in await diagnose(server.address, server.tls())


async def test_a_name_that_is_not_in_dns() -> None:
    assert "no-such-host.invalid, is not found in DNS" in await diagnose("no-such-host.invalid:443", _tls())


async def test_a_port_where_nothing_listens() -> None:
    said = await diagnose("127.0.0.1:1", _tls())
    assert said == "no TCP connection to the server on port 1: 127.0.0.1: connection refused"


async def test_a_server_that_speaks_no_tls() -> None:
    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.com ready\r\n" * 10)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    said = await diagnose(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", _tls())
    assert "does not speak TLS" in said
    server.close()


async def test_a_server_that_hangs_up() -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    said = await diagnose(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", _tls())
    assert "does it speak TLS?" in said
    server.close()


async def test_another_service_behind_the_port(tmp_path: Path) -> None:
    async with _tls_server(tmp_path, AUTHORITY.issue(hosts=["127.0.0.1"]), alpn="http/1.1") as address:
        assert "speaks TLS but not HTTP/2" in await diagnose(address, _tls())


async def test_a_server_certificate_for_other_names(tmp_path: Path) -> None:
    async with _tls_server(tmp_path, AUTHORITY.issue(hosts=["cloud.example.com", "192.0.2.7"])) as address:
        said = await diagnose(address, _tls())
    assert said == "name of the server is not in its certificate: 127.0.0.1; it has 192.0.2.7, cloud.example.com"


async def test_an_expired_server_certificate(tmp_path: Path) -> None:
    async with _tls_server(tmp_path, AUTHORITY.issue(hosts=["127.0.0.1"], ends_in=-DAY)) as address:
        said = await diagnose(address, _tls())
    assert "the server's certificate expired on 20" in said
    assert "this machine's clock says 20" in said
    assert "timedatectl" in said


async def test_a_server_certificate_of_the_future(tmp_path: Path) -> None:
    shown = AUTHORITY.issue(hosts=["127.0.0.1"], starts_in=DAY, ends_in=3 * DAY)
    async with _tls_server(tmp_path, shown) as address:
        said = await diagnose(address, _tls())
    assert "this machine's clock says 20" in said
    assert "23 hours before that: set it (timedatectl" in said


async def test_a_server_of_a_foreign_authority(tmp_path: Path) -> None:
    async with _tls_server(tmp_path, Authority("foreign CA").issue(hosts=["127.0.0.1"])) as address:
        said = await diagnose(address, _tls())
    assert "does not trust the server's certificate" in said
    assert "CN=foreign CA" in said


@pytest.mark.parametrize("tls12", [False, True], ids=["TLS 1.3", "TLS 1.2"])
async def test_a_server_that_rejects_us_with_an_alert(tmp_path: Path, tls12: bool) -> None:
    """In TLS 1.3 the alert comes with the first read after the handshake. gRPC never sends it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*AUTHORITY.issue(hosts=["127.0.0.1"]).write(tmp_path, "server"))
    context.set_alpn_protocols(["h2"])
    context.load_verify_locations(cadata=Authority("another CA").pem.decode())
    context.verify_mode = ssl.CERT_REQUIRED
    if tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    listener = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(ssl.SSLError):
            context.wrap_socket(connection, server_side=True)

    refusing = asyncio.get_running_loop().run_in_executor(None, refuse)
    said = await diagnose(f"127.0.0.1:{listener.getsockname()[1]}", _tls())
    await refusing
    listener.close()
    assert said == "the server does not accept this box's certificate (unknown ca): join again"


async def test_the_certificate_of_this_box_has_expired() -> None:
    async with cloud(echo) as server:
        expired = server.authority.issue(uris=[AGENT], ends_in=-DAY)
        assert "this box's certificate expired on 20" in await diagnose(server.address, server.tls(expired))


async def test_a_missing_certificate_file(tmp_path: Path) -> None:
    tls = ClientTls(certificate=tmp_path / "agent.crt", key=b"", ca=b"")
    assert "cannot read" in await diagnose("127.0.0.1:1", tls)


async def test_what_is_no_address() -> None:
    assert "is not an address" in await diagnose("nonsense", _tls())


# Through a proxy


async def test_through_a_proxy() -> None:
    async with cloud(echo) as server, connect_proxy() as proxy:
        said = await diagnose(server.address, server.tls(), f"http://user:secret@127.0.0.1:{proxy.port}")
        assert "in order" in said
        assert proxy.requests == [server.address]
        assert proxy.credentials == ["Basic dXNlcjpzZWNyZXQ="]


@pytest.mark.parametrize(
    ("status", "user", "said"),
    [
        ("407 Proxy Authentication Required", "", "answered 407 Proxy Authentication Required: it wants a user and"),
        ("407 Proxy Authentication Required", "me:secret@", "it wants other credentials"),
        ("403 Forbidden", "", "refuses CONNECT 127.0.0.1:443: 403 Forbidden"),
    ],
)
async def test_a_proxy_that_refuses(status: str, user: str, said: str) -> None:
    async with connect_proxy(status) as proxy:
        text = await diagnose("127.0.0.1:443", _tls(), f"http://{user}127.0.0.1:{proxy.port}")
    assert text.startswith(f"the proxy 127.0.0.1:{proxy.port} (from https_proxy) ")
    assert said in text
    assert "secret" not in text


async def test_a_proxy_that_is_away() -> None:
    said = await diagnose("a:443", _tls(), "http://127.0.0.1:1")
    assert said == "no TCP connection to the proxy 127.0.0.1:1 (from https_proxy): 127.0.0.1: connection refused"
    said = await diagnose("a:1", _tls(), "no-such-host.invalid:1")
    assert "proxy no-such-host.invalid:1 (from https_proxy), no-such-host.invalid, is not found in DNS" in said


async def test_a_proxy_that_says_nothing_or_nonsense(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnose_module, "_PROXY_ANSWER_S", 0.2)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = await reader.readuntil(b"\r\n\r\n")
        if b"silent" in said:
            await reader.read()
        else:
            writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    proxy = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    named = f"the proxy {proxy} (from https_proxy)"
    assert await diagnose("silent:443", _tls(), proxy) == f"{named} does not answer within 0.2 s"
    assert await diagnose("other:443", _tls(), proxy) == f"{named} does not answer as an HTTP proxy"
    server.close()


# A clock that is wrong


def test_a_certificate_that_the_box_takes_for_good_and_the_server_has_outlived() -> None:
    """The clock stands at a time before: what the server shows began after our own certificate ended."""
    own = AUTHORITY.issue(uris=[AGENT])
    fault = diagnose_module._own_certificate_fault(_tls(own).load(), own.certificate.not_valid_after_utc + DAY)
    assert fault is not None
    assert fault.fault is BOX_CERTIFICATE_TIME
    assert "this box's certificate expired on 20" in fault.text
    assert "the server's own begins on 20" in fault.text


@pytest.mark.parametrize(
    ("address", "split"),
    [
        ("cloud.example.com:7443", ("cloud.example.com", 7443)),
        ("192.0.2.1:1", ("192.0.2.1", 1)),
        ("[2001:db8::1]:65535", ("2001:db8::1", 65535)),
    ],
)
def test_addresses(address: str, split: tuple[str, int]) -> None:
    assert split_address(address) == split
