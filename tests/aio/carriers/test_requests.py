"""Join, Renew and Recover of peers that do not finish what they began."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import grpc.aio
import pytest

from protos import tunnel_pb2
from tests.support import waits
from tests.support.carriers import AGENT, DIRECT, Cloud, cloud, echo
from tunnel.aio.carriers.carrier_errors import EnrollmentRefused
from tunnel.aio.carriers.channel import open_channel, release
from tunnel.aio.carriers.enrollment import MAX_REQUEST_BYTES, call_renew
from tunnel.aio.carriers.limits import CarrierLimits
from tunnel.aio.carriers.methods import CONNECT, JOIN, RECOVER, RENEW
from tunnel.core.wire.faults import PEER_ROLE_REFUSED, PEER_SAID_NOTHING, TOO_MANY_CLIENTS

pytestmark = pytest.mark.usefixtures("leak_watch")


@asynccontextmanager
async def channel_of(server: Cloud, uri: str) -> AsyncIterator[grpc.aio.Channel]:
    channel = await open_channel(server.address, server.tls(server.authority.issue(uris=[uri])), DIRECT)
    try:
        yield channel
    finally:
        release(channel)


async def status_of(channel: grpc.aio.Channel, method: str, message: bytes | None = None) -> grpc.StatusCode:
    """The status of a call that sends its message, or nothing, and does not end."""
    call: grpc.aio.StreamUnaryCall[bytes, bytes] = channel.stream_unary(method)()
    try:
        if message is not None:
            await call.write(message)
        async with asyncio.timeout(waits.scaled_s(8)):
            return await call.code()
    finally:
        call.cancel()


@pytest.mark.parametrize(
    ("uri", "method"),
    [
        (AGENT, JOIN),
        ("spiffe://longline/join/0123", RENEW),
        ("spiffe://longline/user/ann", RECOVER),
        ("spiffe://longline/user/ann", CONNECT),
    ],
)
async def test_who_may_not_ask_is_told_before_the_message_is_there(uri: str, method: str) -> None:
    async with cloud(echo) as server, channel_of(server, uri) as channel:
        assert await status_of(channel, method) is grpc.StatusCode.PERMISSION_DENIED
        assert server.server.refused == {PEER_ROLE_REFUSED.code: 1}


async def test_a_message_may_have_64_kib() -> None:
    async with cloud(echo) as server, channel_of(server, AGENT) as channel:
        assert await status_of(channel, RENEW, bytes(MAX_REQUEST_BYTES + 1)) is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_request_has_its_time_in_all() -> None:
    async with cloud(echo, limits=CarrierLimits(request_timeout_s=0.3)) as server, channel_of(server, AGENT) as channel:
        assert await status_of(channel, RENEW) is grpc.StatusCode.DEADLINE_EXCEEDED
        assert server.server.refused == {PEER_SAID_NOTHING.code: 1}
        await waits.eventually(lambda: server.server.requests.running == 0)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (CarrierLimits(requests_per_identity=2), "too many requests at once by spiffe://longline/agent/box-7"),
        (CarrierLimits(requests_per_identity=9, requests_per_address=2), "too many requests at once from 127.0.0.1"),
        (CarrierLimits(requests_per_identity=9, requests=2), "too many requests at once"),
    ],
)
async def test_only_so_many_run_at_once(limits: CarrierLimits, said: str) -> None:
    async with cloud(echo, limits=limits) as server, channel_of(server, AGENT) as channel:
        asking: grpc.aio.StreamUnaryMultiCallable[bytes, bytes] = channel.stream_unary(RENEW)
        hanging = [asking() for _ in range(2)]
        await waits.eventually(lambda: server.server.requests.running == 2)
        with pytest.raises(EnrollmentRefused, match=said) as caught:
            await call_renew(server.address, server.tls(), tunnel_pb2.RenewRequest(csr_der=b"csr"), DIRECT)
        assert caught.value.retry_after_s == 2.0
        assert caught.value.fault is TOO_MANY_CLIENTS
        for call in hanging:
            call.cancel()
        await waits.eventually(lambda: server.server.requests.running == 0)
