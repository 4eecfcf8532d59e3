from __future__ import annotations

import asyncio
import datetime as dt
import gc
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import psutil
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from protos import tunnel_pb2
from tests.support import waits
from tests.support.carriers import AGENT, DIRECT, Cloud, cloud, echo
from tests.support.pki import Authority
from tunnel.aio.carriers import carrier_server
from tunnel.aio.carriers.carrier import Carrier, CarrierLost, dial_carrier
from tunnel.aio.carriers.carrier_errors import EnrollmentRefused
from tunnel.aio.carriers.carrier_server import AcceptedCarrier, CarrierServer
from tunnel.aio.carriers.channel import open_channel, release
from tunnel.aio.carriers.enrollment import call_join, call_renew
from tunnel.aio.carriers.limits import CarrierLimits
from tunnel.aio.carriers.methods import CONNECT, JOIN, RECOVER, RENEW
from tunnel.aio.identity.peer_identity import Presented
from tunnel.aio.identity.tls_material import ServerTls

DAY = dt.timedelta(days=1)
JOINING = "spiffe://longline/join/0123"
FOREIGN = Authority("foreign CA")


@pytest.fixture
async def server() -> AsyncIterator[Cloud]:
    async with cloud(echo) as running:
        yield running


async def _refusal(server: Cloud, **certificate: object) -> CarrierLost:
    box = server.authority.issue(**certificate)  # type: ignore[arg-type]
    async with asyncio.timeout(waits.scaled_s(10)):
        with pytest.raises(CarrierLost) as caught:
            await server.dial(box)
    return caught.value


def test_the_methods_are_those_of_the_proto() -> None:
    services = tunnel_pb2.DESCRIPTOR.services_by_name
    declared = {f"/{s.full_name}/{m.name}" for s in services.values() for m in s.methods}
    assert declared == {CONNECT, JOIN, RECOVER, RENEW}


# Certificates


async def test_a_certificate_of_a_foreign_authority(server: Cloud) -> None:
    with pytest.raises(CarrierLost) as caught:
        await server.dial(FOREIGN.issue(uris=[AGENT]))
    assert "does not know this box's certificate (unknown ca: it is from CN=foreign CA): join again" in str(
        caught.value
    )


async def test_a_certificate_of_an_authority_that_only_has_the_same_name(server: Cloud) -> None:
    with pytest.raises(CarrierLost) as caught:
        await server.dial(Authority().issue(uris=[AGENT]))
    assert "does not accept this box's certificate" in str(caught.value)


async def test_an_expired_certificate(server: Cloud) -> None:
    lost = await _refusal(server, uris=[AGENT], ends_in=-DAY)
    assert "this box's certificate expired on 20" in lost.text


async def test_a_certificate_that_expires_while_its_carrier_is_up(server: Cloud) -> None:
    box = server.authority.issue(uris=[AGENT], ends_in=dt.timedelta(seconds=2))
    ends = box.certificate.not_valid_after_utc
    carrier = await server.dial(box)
    await carrier.write(b"while it is good")
    assert await carrier.read() == b"while it is good"
    with pytest.raises(CarrierLost, match=f"the certificate of {AGENT} has expired"):
        await carrier.read()
    late_s = (dt.datetime.now(dt.UTC) - ends).total_seconds()
    # The clock is looked at once in LOOK_AT_CLOCK_S; the rest is for a busy machine to notice.
    assert 0 <= late_s < carrier_server.LOOK_AT_CLOCK_S + waits.scaled_s(1)
    await waits.eventually(lambda: not server.server._carriers)
    carrier.close()


async def test_a_clock_that_is_set_forward_ends_certificates_too(
    server: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier_server, "LOOK_AT_CLOCK_S", 0.01)
    carrier = await server.dial()
    await carrier.write(b"x")
    assert await carrier.read() == b"x"

    class Later(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
            return dt.datetime.now(tz) + dt.timedelta(days=30)

    monkeypatch.setattr(carrier_server, "datetime", Later)
    with pytest.raises(CarrierLost, match="has expired"):
        await carrier.read()
    carrier.close()


async def test_a_certificate_of_the_future(server: Cloud) -> None:
    lost = await _refusal(server, uris=[AGENT], starts_in=DAY, ends_in=3 * DAY)
    assert "timedatectl" in lost.text


async def test_a_certificate_that_is_only_for_servers(server: Cloud) -> None:
    lost = await _refusal(server, uris=[AGENT], usage=[ExtendedKeyUsageOID.SERVER_AUTH])
    assert "does not accept this box's certificate" in lost.text


async def test_the_authority_itself_as_a_client(server: Cloud) -> None:
    with pytest.raises(CarrierLost) as caught:
        await server.dial(server.authority.itself())
    assert "0 URI names" in caught.value.text


async def test_no_certificate(server: Cloud) -> None:
    credentials = grpc.ssl_channel_credentials(server.authority.pem)
    channel = grpc.aio.secure_channel(server.address, credentials, [("grpc.enable_http_proxy", 0)])
    join: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(JOIN)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await join(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    release(channel)


@pytest.mark.parametrize(
    ("uris", "said"),
    [
        (["spiffe://elsewhere/agent/box-7"], "trust domain 'elsewhere'"),
        ([], "0 URI names"),
        ([AGENT, "spiffe://longline/agent/box-8"], "2 URI names"),
        (["https://longline/agent/box-7"], "not a spiffe:// name"),
        (["spiffe://longline/robot/box-7"], "no role that is known here"),
        (["spiffe://longline/agent"], "no role that is known here"),
        (["spiffe://longline/agent/a/b"], "no role that is known here"),
        (["spiffe://longline/user/ann"], "that takes role 'agent'"),
        ([JOINING], "that takes role 'agent'"),
        (["spiffe://longline/server"], "that takes role 'agent'"),
    ],
)
async def test_a_good_certificate_that_names_no_agent(server: Cloud, uris: list[str], said: str) -> None:
    lost = await _refusal(server, uris=uris)
    assert said in lost.text
    assert lost.refused


async def test_a_dns_name_that_looks_like_an_identity_is_none(server: Cloud) -> None:
    assert "0 URI names" in (await _refusal(server, hosts=[AGENT])).text


async def test_a_new_server_certificate_is_taken_up_without_a_restart(tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = authority.issue(hosts=["127.0.0.1"]).write(tmp_path, "server")
    running = CarrierServer(
        ["127.0.0.1:0"], ServerTls(certificate=certificate, key=key, client_ca=authority.pem), echo, None
    )
    await running.start()
    try:
        server = Cloud(server=running, authority=authority)
        box = authority.issue(uris=[AGENT])
        (await server.dial(box)).close()
        authority.issue(hosts=["192.0.2.1"]).write(tmp_path, "server")
        with pytest.raises(
            CarrierLost, match=r"name of the server is not in its certificate: 127\.0\.0\.1; it has 192\.0\.2\.1"
        ):
            await server.dial(box)
        key.write_bytes(b"broken")
        with pytest.raises(CarrierLost, match=r"it has 192\.0\.2\.1"):
            await server.dial(box)
        authority.issue(hosts=["127.0.0.1"]).write(tmp_path, "server")
        (await server.dial(box)).close()
    finally:
        await running.stop(1.0)


# Methods


@pytest.mark.parametrize(
    ("uri", "method", "expected"),
    [
        (AGENT, "/longline.v1.Tunnel/Other", grpc.StatusCode.UNIMPLEMENTED),
        (AGENT, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", grpc.StatusCode.UNIMPLEMENTED),
        (AGENT, "/", grpc.StatusCode.UNIMPLEMENTED),
        (AGENT, CONNECT + "/", grpc.StatusCode.UNIMPLEMENTED),
        (AGENT, CONNECT.lower(), grpc.StatusCode.UNIMPLEMENTED),
        (AGENT, JOIN, grpc.StatusCode.PERMISSION_DENIED),
        (JOINING, RENEW, grpc.StatusCode.PERMISSION_DENIED),
        ("spiffe://longline/user/ann", JOIN, grpc.StatusCode.PERMISSION_DENIED),
        ("spiffe://longline/user/ann", RENEW, grpc.StatusCode.PERMISSION_DENIED),
        (JOINING, JOIN, grpc.StatusCode.INVALID_ARGUMENT),
        (AGENT, RENEW, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_whatever_is_not_for_this_role_is_refused(
    server: Cloud, uri: str, method: str, expected: grpc.StatusCode
) -> None:
    channel = await open_channel(server.address, server.tls(server.authority.issue(uris=[uri])), DIRECT)
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(method)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"\xff\xff", timeout=10)
    assert caught.value.code() is expected
    release(channel)


class _Desk:
    """An enrollment handler that issues nothing but notes who asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, object]] = []

    def boxes_left(self, _uri: str) -> int:
        return 1

    async def join(self, peer: Presented, request: tunnel_pb2.JoinRequest) -> tunnel_pb2.JoinResponse:
        self.asked.append((peer.uri, request.csr_der))
        if request.csr_der == b"used":
            raise EnrollmentRefused("this join token was used already: make a new one")
        if request.csr_der == b"bug":
            raise KeyError("secret detail")
        return tunnel_pb2.JoinResponse(agent_name="box-7", ca_pem=b"ca", chain_der=[b"leaf"])

    async def renew(self, peer: Presented, request: tunnel_pb2.RenewRequest) -> tunnel_pb2.RenewResponse:
        self.asked.append((peer.uri, peer.spki_sha256))
        return tunnel_pb2.RenewResponse(ca_pem=b"ca", chain_der=[b"new leaf"])

    async def recover(self, peer: Presented, request: tunnel_pb2.RenewRequest) -> tunnel_pb2.RenewResponse:
        self.asked.append((peer.uri, peer.spki_sha256))
        return tunnel_pb2.RenewResponse(ca_pem=b"ca", chain_der=[b"leaf of old"])


async def test_joining_and_renewing() -> None:
    desk = _Desk()
    async with cloud(echo, enrollment=desk) as server:
        joining = server.tls(server.authority.issue(uris=[JOINING]))
        joined = await call_join(server.address, joining, tunnel_pb2.JoinRequest(csr_der=b"csr"), DIRECT)
        assert (joined.agent_name, list(joined.chain_der)) == ("box-7", [b"leaf"])
        renewed = await call_renew(server.address, server.tls(), tunnel_pb2.RenewRequest(csr_der=b"csr"), DIRECT)
        assert list(renewed.chain_der) == [b"new leaf"]
    assert desk.asked[0] == (JOINING, b"csr")
    assert desk.asked[1][0] == AGENT
    assert isinstance(desk.asked[1][1], bytes)
    assert len(desk.asked[1][1]) == 32


async def test_a_refused_join_says_why() -> None:
    async with cloud(echo, enrollment=_Desk()) as server:
        joining = server.tls(server.authority.issue(uris=[JOINING]))
        with pytest.raises(EnrollmentRefused, match="used already"):
            await call_join(server.address, joining, tunnel_pb2.JoinRequest(csr_der=b"used"), DIRECT)
        with pytest.raises(EnrollmentRefused, match="takes role 'join'"):
            await call_join(server.address, server.tls(), tunnel_pb2.JoinRequest(), DIRECT)


@pytest.mark.may_block("structlog's development renderer looks at the files of a traceback")
async def test_a_fault_in_the_handler_is_answered_without_its_details() -> None:
    async with cloud(echo, enrollment=_Desk()) as server:
        joining = server.tls(server.authority.issue(uris=[JOINING]))
        with pytest.raises(CarrierLost) as caught:
            await call_join(server.address, joining, tunnel_pb2.JoinRequest(csr_der=b"bug"), DIRECT)
        assert "its log has the reason" in caught.value.text
        assert "secret" not in caught.value.text


async def test_joining_a_server_that_does_not_enroll(server: Cloud) -> None:
    joining = server.tls(server.authority.issue(uris=[JOINING]))
    with pytest.raises(EnrollmentRefused, match="does not enroll"):
        await call_join(server.address, joining, tunnel_pb2.JoinRequest(csr_der=b"csr"), DIRECT)


async def test_joining_where_nothing_listens(server: Cloud) -> None:
    with pytest.raises(CarrierLost, match="connection refused"):
        await call_join("127.0.0.1:1", server.tls(), tunnel_pb2.JoinRequest(), DIRECT)


# Limits


async def test_a_silent_carrier_is_closed() -> None:
    async with cloud(echo, limits=CarrierLimits(first_message_timeout_s=0.2)) as server:
        silent, speaking = await server.dial(), await server.dial()
        await speaking.write(b"hello")
        assert await speaking.read() == b"hello"
        async with asyncio.timeout(waits.scaled_s(5)):
            assert await silent.read() is None
        await speaking.write(b"still here")
        assert await speaking.read() == b"still here"
        silent.close()
        speaking.close()


async def test_only_so_many_may_be_silent() -> None:
    async with cloud(echo, limits=CarrierLimits(max_silent_per_address=2)) as server:
        silent = [await server.dial(), await server.dial()]
        with pytest.raises(CarrierLost, match="said nothing: try later"):
            await server.dial()
        await silent[0].write(b"now it speaks")
        assert await silent[0].read() == b"now it speaks"
        silent.append(await server.dial())
        silent[1].close()
        await asyncio.sleep(0)
        for carrier in silent:
            carrier.close()
        await waits.eventually(lambda: not server.server._silent)


async def test_a_silent_box_keeps_no_other_of_its_address_out() -> None:
    limits = CarrierLimits(max_silent_per_address=3, max_silent_per_identity=2)
    async with cloud(echo, limits=limits) as server:
        silent = [await server.dial(), await server.dial(), await server.dial()]
        async with asyncio.timeout(waits.scaled_s(5)):
            assert await silent[0].read() is None, "of one name, the newest stay"
        neighbour = await server.dial(server.authority.issue(uris=["spiffe://longline/agent/box-8"]))
        await neighbour.write(b"hello")
        assert await neighbour.read() == b"hello"
        for carrier in (*silent, neighbour):
            carrier.close()
        await waits.eventually(lambda: not server.server._silent)


async def test_all_silent_ones_together_are_bounded() -> None:
    async with cloud(echo, limits=CarrierLimits(max_silent=1)) as server:
        silent = await server.dial()
        with pytest.raises(CarrierLost, match="said nothing: try later"):
            await server.dial()
        silent.close()


# Listening and stopping


async def test_a_port_in_use_is_an_error(server: Cloud) -> None:
    second = CarrierServer([server.address], server.server._tls, echo, None)
    with pytest.raises(OSError, match=f"cannot listen on {server.address}"):
        await second.start()


def listening(port: int) -> int:
    """How many sockets of this process listen on a port."""
    found = psutil.Process().net_connections("tcp")
    return sum(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in found)


async def test_one_that_takes_over_listens_beside_the_one_that_stops_to_listen(server: Cloud) -> None:
    async with cloud(echo, listen=()) as after:
        with pytest.raises(OSError, match="another process does"):
            await after.server.listen(server.address)
        before = await server.dial()
        await before.write(b"to the old one")
        assert await before.read() == b"to the old one"
        await after.server.listen(server.address, shared=True)
        assert listening(server.server.ports[0]) == 2
        server.server.stop_listening(60.0)
        await waits.eventually(lambda: listening(server.server.ports[0]) == 1)
        for _ in range(8):  # the kernel would give each of the two half of them
            carrier = await after.dial()
            await carrier.write(b"to the new one")
            assert await carrier.read() == b"to the new one"
            carrier.close()
        assert len(server.server._carriers) == 1
        await before.write(b"goes on")
        assert await before.read() == b"goes on"
        before.close()


async def test_several_addresses() -> None:
    async with cloud(echo, listen=["127.0.0.1:0", "[::1]:0"]) as server:
        for address in (f"127.0.0.1:{server.server.ports[0]}", f"[::1]:{server.server.ports[1]}"):
            carrier = await server.dial(address=address)
            carrier.close()


async def test_stopping_is_quick_and_delivers_what_was_written() -> None:
    async def farewell(carrier: Carrier, _uri: str, _spki: bytes) -> None:
        await carrier.read()
        await carrier.write(b"goodbye")
        written.set()
        await carrier.read()

    written = asyncio.Event()
    async with cloud(farewell) as server:
        idle, told = await server.dial(), await server.dial()
        await told.write(b"hello")
        await written.wait()
        began = time.monotonic()
        await server.server.stop(5.0)
        assert time.monotonic() - began < waits.scaled_s(2)
        assert await told.read() == b"goodbye"
        assert await told.read() is None
        assert await idle.read() is None
        for carrier in (idle, told):
            carrier.close()
        with pytest.raises(CarrierLost):
            await server.dial()


async def test_an_owner_that_does_not_end_is_cancelled_after_the_grace() -> None:
    cancelled = asyncio.Event()

    async def stubborn(_carrier: Carrier, _uri: str, _spki: bytes) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with cloud(stubborn) as server:
        carrier = await server.dial()
        await server.server.stop(0.2)
        assert cancelled.is_set()
        carrier.close()


async def test_an_owner_is_not_cancelled_when_the_box_goes_away() -> None:
    seen: list[str] = []
    begun = asyncio.Event()

    async def busy(carrier: Carrier, _uri: str, _spki: bytes) -> None:
        assert await carrier.read() == b"x"
        begun.set()
        with pytest.raises(CarrierLost):
            await carrier.read()
        await asyncio.sleep(0.05)
        seen.append("finished its work")

    async with cloud(busy) as server:
        carrier = await server.dial()
        await carrier.write(b"x")
        await begun.wait()  # what was only handed over may be lost with a close
        carrier.close()
        await waits.eventually(lambda: seen)


@pytest.mark.may_block("structlog's development renderer looks at the files of a traceback")
async def test_a_carrier_that_is_over_is_not_kept_for_the_garbage_collector() -> None:
    async def hold(carrier: Carrier, _uri: str, _spki: bytes) -> None:
        while await carrier.read() is not None:
            pass

    def kept() -> list[object]:
        return [held for held in gc.get_objects() if isinstance(held, AcceptedCarrier)]

    async with cloud(hold) as server:
        gc.collect()
        gc.disable()
        try:
            for _ in range(3):
                carrier = await server.dial()
                await carrier.write(b"hello")
                carrier.close()
            await waits.eventually(lambda: not kept())
        finally:
            gc.enable()


async def test_an_owner_that_fails_ends_its_carrier_only() -> None:
    async def broken(carrier: Carrier, uri: str, spki: bytes) -> None:
        if await carrier.read() == b"break":
            raise RuntimeError("a bug")
        await echo(carrier, uri, spki)

    async with cloud(broken) as server:
        first, second = await server.dial(), await server.dial()
        await second.write(b"hello")
        await first.write(b"break")
        async with asyncio.timeout(waits.scaled_s(5)):
            assert await first.read() is None
        await second.write(b"fine")
        assert await second.read() == b"fine"
        first.close()
        second.close()


async def test_dialling_through_tls_of_another_service(server: Cloud, tmp_path: Path) -> None:
    import ssl

    certificate, key = server.authority.issue(hosts=["127.0.0.1"]).write(tmp_path, "web")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    web = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    with pytest.raises(CarrierLost, match="speaks TLS but not HTTP/2"):
        await dial_carrier(f"127.0.0.1:{web.sockets[0].getsockname()[1]}", server.tls(), DIRECT)
    web.close()
