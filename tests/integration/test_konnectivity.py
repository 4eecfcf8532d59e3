"""kube-apiserver's GRPC mode with real daemons: a cut link, an agent that is frozen or killed, a server that stops."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from protos.konnectivity_pb2 import CloseRequest, Data, DialRequest, Packet, PacketType
from tests.support.konnectivity_client import ProxyCall, connected
from tests.support.targets import BANNER
from tests.support.tunnel import BOX, Tunnel, tunnel
from tests.support.waits import sooner_than

DEADLINE_S = 2
DEFAULT_DEADLINE_S = 10
"""What a dial may take where the configuration says nothing."""
ECHOES = 50


@pytest.fixture(scope="module")
def shared_here() -> Iterator[Tunnel]:
    with tunnel(["echo", "banner"], server={"dial_timeout_s": DEADLINE_S}) as made:
        yield made


def address(made: Tunnel, behaviour: str) -> str:
    return f"{BOX}:{made.targets[behaviour].port}"


async def received(call: grpc.aio.StreamStreamCall[Any, Any]) -> Packet:
    packet = await call.read()
    assert isinstance(packet, Packet), packet
    return packet


async def echo(call: ProxyCall) -> None:
    await call.send_data(b"ping")
    assert await call.receive_data(4) == b"ping"


async def test_tunnels_go_on_over_a_link_that_is_cut(shared_here: Tunnel) -> None:
    async with connected(shared_here.cluster.unix_socket) as client:
        calls = [await client.tunnel(address(shared_here, "echo")) for _ in range(5)]
        for _ in range(3):
            await asyncio.gather(*map(echo, calls))
            await asyncio.to_thread(shared_here.link.cut)
        await asyncio.gather(*map(echo, calls))


@pytest.mark.e2e
async def test_an_endpoint_that_speaks_first_is_always_heard(shared_here: Tunnel) -> None:
    for _ in range(ECHOES):
        async with connected(shared_here.cluster.unix_socket) as client:
            call = await client.tunnel(address(shared_here, "banner"))
            assert await call.receive_data(len(BANNER)) == BANNER
            await call.ask_to_close()


async def test_a_dial_at_a_frozen_agent_is_answered_in_time(shared_here: Tunnel) -> None:
    agent = shared_here.box.agent
    async with connected(shared_here.cluster.unix_socket) as client:
        await client.tunnel(address(shared_here, "echo"))
        agent.send(signal.SIGSTOP)
        try:
            with sooner_than(DEFAULT_DEADLINE_S, "the answer"):
                answer = await (await client.call()).dial(address(shared_here, "echo"))
            assert BOX in answer.error
        finally:
            agent.send(signal.SIGCONT)
        await echo(await client.tunnel(address(shared_here, "echo")))


async def test_an_agent_that_was_killed_closes_its_tunnels_with_a_reason() -> None:
    with tunnel(["echo"]) as made:
        async with connected(made.cluster.unix_socket) as client:
            call = await client.tunnel(address(made, "echo"))
            await echo(call)
            made.box.agent.kill()
            await asyncio.to_thread(made.restart_box)
            packet = await call.receive()
            assert packet.type == PacketType.CLOSE_RSP
            assert packet.close_response.error
            await echo(await client.tunnel(address(made, "echo")))


async def test_a_server_that_stops_lets_tunnels_finish_and_then_goes() -> None:
    with tunnel(["echo"]) as made:
        # gRPC's own client: it goes on with what it has after a GOAWAY, as kube-apiserver's does.
        async with (
            connected(made.cluster.unix_socket) as idle,
            grpc.aio.insecure_channel(f"unix:{made.cluster.unix_socket}") as channel,
        ):
            proxy = channel.stream_stream(
                "/ProxyService/Proxy",
                request_serializer=Packet.SerializeToString,
                response_deserializer=Packet.FromString,
            )
            call: grpc.aio.StreamStreamCall[Any, Any] = proxy()
            request = DialRequest(protocol="tcp", address=address(made, "echo"), random=1)
            await call.write(Packet(dial_request=request))
            number = (await received(call)).dial_response.connect_id
            made.cluster.server.send(signal.SIGTERM)
            await idle.gone.wait()
            await call.write(Packet(type=PacketType.DATA, data=Data(connect_id=number, data=b"goes on")))
            assert (await received(call)).data.data == b"goes on"
            await call.write(Packet(type=PacketType.CLOSE_REQ, close_request=CloseRequest(connect_id=number)))
            assert (await received(call)).close_response.connect_id == number
            assert await asyncio.to_thread(made.cluster.server.wait) == 0
