"""What kube-apiserver meets in GRPC mode: dials, data, and all the ways in which a tunnel ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cloud_server.frontends.konnectivity import tunnel
from protos.konnectivity_pb2 import Data, Packet, PacketType
from tests.cloud_server.frontends.konnectivity.served import (
    ECHO,
    NEVER_ANSWERS,
    NEVER_READS,
    REFUSES,
    RESETS,
    SINK,
    SOURCE,
    Served,
    served,
)
from tests.support.konnectivity_client import DIAL_EXAMPLE, ProxyClient, connected, framed
from tests.support.waits import eventually, scaled_s
from tunnel.core.wire.target import TcpTarget

MIB = 1024 * 1024


def at(port: int) -> str:
    return f"10.0.0.1:{port}"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as made:
        yield made
        await eventually(lambda: made.streams == 0, what="all streams over")


@pytest.fixture
async def client(site: Served) -> AsyncIterator[ProxyClient]:
    async with connected(site.path) as made:
        yield made


# Dials


async def test_a_dial_is_answered_with_its_random_and_an_id(site: Served, client: ProxyClient) -> None:
    call = await client.call()
    answer = await call.dial(at(ECHO), random=2**63 - 1)
    assert (answer.random, answer.error) == (2**63 - 1, "")
    assert answer.connect_id > 0
    assert call.headers == {":status": "200", "content-type": "application/grpc", "grpc-accept-encoding": "identity"}
    assert site.site.asked == [("box-7", TcpTarget("10.0.0.1", ECHO), "kube-apiserver", "konnectivity", 5.0)]


async def test_the_bytes_of_a_real_dial(client: ProxyClient) -> None:
    call = await client.call()
    await call.write(framed(DIAL_EXAMPLE))
    answer = (await call.receive()).dial_response
    assert answer.random == 4690001353539750355
    assert answer.error.startswith("LL4003: no agent for 10.1.2.3: ")


async def test_why_a_dial_failed_is_said_in_one_line(site: Served, client: ProxyClient) -> None:
    call = await client.call()
    answer = await call.dial(at(REFUSES), random=77)
    assert (answer.random, answer.connect_id) == (77, 0)
    assert answer.error == "LL4201: 10.0.0.1:1: connection refused"
    assert await call.status() == (0, "")
    assert [(line["event"], line["agent"], line["target"], line["reason"]) for line in site.records] == [
        ("refused", "box-7", at(REFUSES), "refused")
    ]


async def test_only_tcp(site: Served, client: ProxyClient) -> None:
    call = await client.call()
    await call.ask(at(ECHO), protocol="udp")
    assert (await call.receive()).dial_response.error == "LL4308: only tcp is carried, not udp"
    (record,) = site.records
    assert (record["event"], record["reason"], record["who"]) == ("refused", "unreachable", "kube-apiserver")


async def test_a_dial_is_answered_within_the_deadline(tmp_path: Path) -> None:
    async with served(tmp_path, deadline_s=0.05) as site, connected(site.path) as client:
        call = await client.call()
        answer = await call.dial(at(NEVER_ANSWERS))
        assert answer.error
        assert await call.status() == (0, "")
        await eventually(lambda: site.far.given_up == 1)


async def test_a_call_without_a_dial_ends(client: ProxyClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel, "ASK_S", 0.02)
    call = await client.call()
    assert await call.status() == (4, "no dial came in time")


async def test_a_second_dial_in_a_call_is_refused_and_the_first_goes_on(client: ProxyClient) -> None:
    call = await client.tunnel(at(ECHO))
    await call.ask(at(ECHO), random=43)
    answer = (await call.receive()).dial_response
    assert (answer.random, answer.error) == (43, "this call has had its dial; make another")
    await call.send_data(b"still here")
    assert await call.receive_data(10) == b"still here"


# Clients that give up while a dial runs


async def test_a_dial_that_is_given_up_is_cancelled_at_the_agent(site: Served, client: ProxyClient) -> None:
    call = await client.call()
    await call.ask(at(NEVER_ANSWERS), random=5)
    await eventually(lambda: site.far.dialling == 1)
    await call.give_up(random=6)  # another one, which there is not
    await client.tunnel(at(ECHO))  # the server has seen that by now
    assert site.far.given_up == 0
    await call.give_up(random=5)
    assert await call.status() == (0, "")
    await eventually(lambda: site.far.given_up == 1)


@pytest.mark.parametrize("how", ["reset", "half-close", "connection"])
async def test_a_client_that_leaves_cancels_its_dial(site: Served, how: str) -> None:
    async with connected(site.path) as client:
        call = await client.call()
        await call.ask(at(NEVER_ANSWERS))
        await eventually(lambda: site.far.dialling == 1)
        if how == "reset":
            await call.drop()
        elif how == "half-close":
            await call.half_close()
        if how != "connection":
            await eventually(lambda: site.far.given_up == 1)
            await client.tunnel(at(ECHO))
    await eventually(lambda: site.far.given_up == 1)


async def test_giving_up_that_crosses_the_answer_leaves_nothing_open(site: Served, client: ProxyClient) -> None:
    call = await client.tunnel(at(SINK))
    await call.give_up()
    assert await call.status() == (0, "")
    assert await site.far.endpoints[0].ended == "connection_reset"


async def test_request_and_reset_in_one_breath(site: Served, client: ProxyClient) -> None:
    client.h2.send_headers(
        1,
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", "/ProxyService/Proxy"),
            (":authority", "x"),
            ("content-type", "application/grpc"),
        ],
    )
    client.h2.send_data(1, framed(DIAL_EXAMPLE))
    client.h2.reset_stream(1, 8)
    await client.flush()
    client._calls.clear()
    await client.tunnel(at(ECHO))


# Data


async def test_echo(client: ProxyClient) -> None:
    call = await client.tunnel(at(ECHO))
    for text in (b"a", b"", b"bc", bytes(100_000)):
        await call.send_data(text)
        assert await call.receive_data(len(text)) == text


@pytest.mark.parametrize("payload", [b"banner", b""])
async def test_an_endpoint_that_speaks_or_ends_first_waits_for_the_client(
    site: Served, client: ProxyClient, monkeypatch: pytest.MonkeyPatch, payload: bytes
) -> None:
    monkeypatch.setattr(tunnel, "SETTLE_S", 3600.0)
    site.far.payload = payload
    call = await client.tunnel(at(SOURCE))
    await eventually(lambda: site.far.endpoints[0].sent >= len(payload))
    other = await client.tunnel(at(ECHO))
    await other.send_data(b"x")
    await other.receive_data(1)
    assert not call.packets
    await call.send_data(b"hello")
    assert (await call.receive_until_closed())[0] == payload


async def test_a_client_that_says_nothing_hears_what_the_endpoint_says(site: Served, client: ProxyClient) -> None:
    site.far.payload = b"banner"
    call = await client.tunnel(at(SOURCE))
    assert await call.receive_data(6) == b"banner"


async def test_much_data_down_in_large_packets(
    site: Served, client: ProxyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "GATHER_S", 2.0)  # a busy machine may fill no packet in 20 ms, nor send one in each 100
    monkeypatch.setattr(tunnel, "PAUSE_S", 10.0)
    site.far.payload = random.Random(1).randbytes(5 * MIB + 17)
    call = await client.tunnel(at(SOURCE))
    received, sizes = bytearray(), []
    while (packet := await call.receive()).type == PacketType.DATA:
        received += packet.data.data
        sizes.append(len(packet.data.data))
    assert received == site.far.payload
    assert max(sizes) <= tunnel.MAX_BATCH_BYTES
    assert sum(size for size in sizes if size >= tunnel.BULK_BYTES) > len(received) * 0.9, sizes


async def test_much_data_up_in_packets_of_up_to_four_mib(site: Served, client: ProxyClient) -> None:
    payload = random.Random(2).randbytes(4 * MIB - 20)
    call = await client.tunnel(at(SINK))
    await call.send_data(payload)
    for start in range(0, len(payload), 32768):
        await call.send_data(payload[start : start + 32768])
    await call.ask_to_close()
    assert await site.far.endpoints[0].ended == "eof"
    assert site.far.endpoints[0].received == payload * 2


async def test_many_tunnels_on_one_connection_keep_their_data_apart(site: Served, client: ProxyClient) -> None:
    async def one(number: int) -> None:
        call = await client.tunnel(at(ECHO))
        text = random.Random(number).randbytes(100_000)
        sending = asyncio.get_running_loop().create_task(call.send_data(text))
        assert await call.receive_data(len(text)) == text
        await sending
        await call.ask_to_close()
        assert (await call.receive()).close_response.connect_id == call.connect_id

    await asyncio.gather(*map(one, range(60)))


async def test_data_before_a_dial_and_with_ids_that_are_none(site: Served, client: ProxyClient) -> None:
    call = await client.call()
    await call.send_data(b"x", connect_id=0)
    await call.send_data(b"x", connect_id=9)
    closed = await call.receive()
    assert closed.close_response.connect_id == 9
    assert closed.close_response.error == "backend not initialized"
    await call.ask_to_close(connect_id=8)
    assert (await call.receive()).close_response.error == "backend not initialized"
    assert (await call.dial(at(ECHO))).connect_id
    await call.send_data(b"ignored", connect_id=0)
    await call.send_data(b"taken")
    assert await call.receive_data(5) == b"taken"


@pytest.mark.parametrize("packet", ["data", "close"])
async def test_an_id_of_another_tunnel_ends_both_as_it_does_elsewhere(
    site: Served, client: ProxyClient, packet: str
) -> None:
    call = await client.tunnel(at(SINK))
    other = call.connect_id + 1
    if packet == "data":
        await call.send_data(b"x", connect_id=other)
    else:
        await call.ask_to_close(other)
    closed = [(await call.receive()).close_response for _ in range(2)]
    assert [one.connect_id for one in closed] == [call.connect_id, other]
    assert {one.error for one in closed} == {"mismatched connection IDs"}
    assert await call.status() == (0, "")
    assert await site.far.endpoints[0].ended == "connection_reset"


async def test_packets_and_fields_that_are_not_known_are_left_out(client: ProxyClient) -> None:
    call = await client.tunnel(at(ECHO))
    await call.send(Packet(type=PacketType.DRAIN))
    await call.write(framed(b""))  # a dial without a request
    await call.write(framed(bytes.fromhex("0863")))  # type 99
    known = Packet(type=PacketType.DATA, data=Data(connect_id=call.connect_id, data=b"known")).SerializeToString()
    await call.write(framed(known + bytes.fromhex("9a06025858")))  # with field 99 behind
    assert await call.receive_data(5) == b"known"


# Ends


async def test_a_close_is_answered_at_once_whatever_the_endpoint_does(site: Served, client: ProxyClient) -> None:
    call = await client.tunnel(at(NEVER_READS))
    await call.send_data(bytes(200_000))
    await call.ask_to_close()
    async with asyncio.timeout(scaled_s(2)):
        closed = (await call.receive()).close_response
    assert (closed.connect_id, closed.error) == (call.connect_id, "")
    assert await call.status() == (0, "")
    site.far.let_go.set()


async def test_what_was_written_before_a_close_arrives_though_the_client_is_gone(site: Served) -> None:
    payload = random.Random(3).randbytes(3 * MIB)
    async with connected(site.path) as client:
        call = await client.tunnel(at(SINK))
        await call.send_data(payload)
        await call.ask_to_close()
        assert (await call.receive()).type == PacketType.CLOSE_RSP
    assert await site.far.endpoints[0].ended == "eof"
    assert site.far.endpoints[0].received == payload
    await eventually(lambda: site.records.of("end"))
    (line,) = site.records.of("end")
    assert (line["reason"], line["bytes_to_agent"], line["bytes_from_agent"]) == ("closed", len(payload), 0)
    assert (line["agent"], line["resolved"], line["frontend"]) == ("box-7", at(SINK), "konnectivity")


async def test_the_end_of_the_endpoint_comes_behind_all_its_bytes(
    site: Served, client: ProxyClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tunnel, "GATHER_S", 3600.0)  # no packet is waited for behind the end
    site.far.payload = random.Random(4).randbytes(MIB)
    call = await client.tunnel(at(SOURCE))
    data, closed = await call.receive_until_closed()
    assert data == site.far.payload
    assert (closed.connect_id, closed.error) == (call.connect_id, "")
    assert await call.status() == (0, "")
    assert await site.far.endpoints[0].ended == "eof"


async def test_a_slow_reader_gets_all_bytes_before_the_end(site: Served, client: ProxyClient) -> None:
    site.far.payload = random.Random(5).randbytes(2 * MIB)
    call = await client.tunnel(at(SOURCE))
    call.reading = False
    other = await client.tunnel(at(ECHO))
    await other.send_data(b"meanwhile")
    assert await other.receive_data(9) == b"meanwhile"
    await eventually(lambda: call.bytes > 60_000)
    await call.take()
    data, closed = await call.receive_until_closed()
    assert await call.status() == (0, "")
    assert data == site.far.payload
    assert closed.error == ""
    await eventually(lambda: site.records.of("end"))
    (line,) = site.records.of("end")
    assert (line["reason"], line["bytes_from_agent"]) == ("closed", len(data))


async def test_what_comes_while_a_packet_is_not_taken_is_counted_once(site: Served, client: ProxyClient) -> None:
    call = await client.tunnel(at(ECHO))
    call.reading = False
    for count in range(1, 8):  # 140 kB, through a window of 64
        await call.send_data(bytes(20_000))
        await eventually(lambda count=count: len(site.far.endpoints[0].received) == 20_000 * count)  # type: ignore[misc]
    await call.take()
    assert await call.receive_data(140_000) == bytes(140_000)
    await call.ask_to_close()
    assert (await call.receive()).type == PacketType.CLOSE_RSP
    await call.status()
    await eventually(lambda: site.records.of("end"))
    ended = site.records.of("end")
    assert [(line["bytes_to_agent"], line["bytes_from_agent"]) for line in ended] == [(140_000, 140_000)]


async def test_a_reset_of_the_endpoint_is_no_clean_close(site: Served, client: ProxyClient) -> None:
    call = await client.tunnel(at(RESETS))
    await call.send_data(b"x")
    _, closed = await call.receive_until_closed()
    assert (closed.connect_id, closed.error) == (call.connect_id, "reset by the target")
    assert await call.status() == (0, "")
    (line,) = site.records.of("end")
    assert (line["reason"], line["text"]) == ("connection_reset", "reset by the target")


async def test_a_session_that_is_lost_closes_with_a_reason(site: Served, client: ProxyClient) -> None:
    call = await client.tunnel(at(ECHO))
    await site.site.pair.server.aclose()
    _, closed = await call.receive_until_closed()
    assert closed.error


@pytest.mark.parametrize("how", ["reset", "connection"])
async def test_a_client_that_leaves_without_a_close_is_a_reset_to_the_endpoint(site: Served, how: str) -> None:
    async with connected(site.path) as client:
        call = await client.tunnel(at(SINK))
        await call.send_data(b"half of it")
        await eventually(lambda: site.far.endpoints[0].received)
        if how == "reset":
            await call.drop()
            await site.far.endpoints[0].ended
    assert await site.far.endpoints[0].ended == "connection_reset"
    assert [line["reason"] for line in site.records.of("end")] == ["connection_reset"]


async def test_a_client_that_only_finishes_closes(site: Served, client: ProxyClient) -> None:
    call = await client.tunnel(at(SINK))
    await call.send_data(b"all of it")
    await call.half_close()
    assert await call.status() == (0, "")
    assert await site.far.endpoints[0].ended == "eof"
    assert site.far.endpoints[0].received == b"all of it"
