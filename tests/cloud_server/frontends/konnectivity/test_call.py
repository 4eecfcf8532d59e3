"""gRPC as clients break it: each call ends with the status that says so, and no other call is hurt."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from h2.settings import SettingCodes

from cloud_server.frontends.konnectivity import call as call_module
from cloud_server.frontends.konnectivity import frontend
from cloud_server.frontends.konnectivity.messages import MAX_MESSAGE_BYTES
from tests.cloud_server.frontends.konnectivity.served import ECHO, NEVER_READS, SINK, Served, served
from tests.support.konnectivity_client import ProxyClient, connected, framed
from tests.support.waits import eventually

MIB = 1024 * 1024


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as made:
        yield made
        await eventually(lambda: made.streams == 0, what="all streams over")


@pytest.fixture
async def client(site: Served) -> AsyncIterator[ProxyClient]:
    """With a tunnel that must still work at the end."""
    async with connected(site.path) as made:
        other = await made.tunnel(f"10.0.0.1:{ECHO}")
        yield made
        await other.send_data(b"unhurt")
        assert await other.receive_data(6) == b"unhurt"


@pytest.mark.parametrize(
    ("changed", "status", "grpc_status"),
    [
        ({"path": "/ProxyService/Other"}, "200", "12"),
        ({"path": "/AgentService/Connect"}, "200", "12"),
        ({"content_type": "application/json"}, "415", None),
        ({"content_type": "application/grpc+json"}, "415", None),
        ({"method": "GET"}, "405", None),
        ({"method": "PUT"}, "405", None),
    ],
)
async def test_requests_that_are_no_calls_of_ours(
    client: ProxyClient, changed: dict[str, str], status: str, grpc_status: str | None
) -> None:
    call = await client.call(**changed)
    with pytest.raises(EOFError):
        await call.receive()
    assert call.headers[":status"] == status
    assert call.headers.get("grpc-status") == grpc_status


@pytest.mark.parametrize("authority", ["/run/egress.sock", "%2Frun%2Fegress.sock", "localhost"])
async def test_any_authority_will_do(client: ProxyClient, authority: str) -> None:
    call = await client.call(authority=authority, user_agent="grpc-go/1.27.1", grpc_timeout="10S")
    assert (await call.dial(f"10.0.0.1:{ECHO}")).connect_id
    await call.ask_to_close()


async def test_a_message_that_is_no_packet(client: ProxyClient) -> None:
    call = await client.call()
    await call.write(framed(b"\xff\xff\xff"))
    assert await call.status() == (13, "a message is no Packet")


async def test_a_compressed_message(client: ProxyClient) -> None:
    call = await client.call(grpc_encoding="gzip")
    await call.write(framed(b"x", compressed=1))
    assert await call.status() == (12, "compressed messages are not taken")


async def test_a_message_that_is_too_long_ends_an_open_tunnel(site: Served, client: ProxyClient) -> None:
    call = await client.tunnel(f"10.0.0.1:{SINK}")
    await call.write(struct.pack(">BI", 0, MAX_MESSAGE_BYTES + 1))
    status, text = await call.status()
    assert status == 8
    assert str(MAX_MESSAGE_BYTES) in text
    assert await site.far.endpoints[1].ended == "connection_reset"


@pytest.mark.parametrize("part", [b"\x00", framed(b"whole")[:-1]])
async def test_an_end_in_the_middle_of_a_message_is_no_clean_end(
    site: Served, client: ProxyClient, part: bytes
) -> None:
    call = await client.tunnel(f"10.0.0.1:{SINK}")
    await call.write(part)
    await call.half_close()
    assert await call.status() == (13, "the call ended in the middle of a message")
    assert await site.far.endpoints[1].ended == "connection_reset"


async def test_what_comes_behind_the_end_of_a_call_is_dropped(client: ProxyClient) -> None:
    call = await client.call()
    await call.write(framed(b"\xff") + framed(b"\xff") * 1000)
    assert (await call.status())[0] == 13


async def test_long_messages_have_a_memory_of_their_own_and_it_ends(
    site: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frontend, "ASSEMBLY_BYTES", 10 * MIB)
    async with connected(site.path) as client:
        calls = [await client.call() for _ in range(4)]
        for call in calls[:2]:
            await call.write(struct.pack(">BI", 0, 4 * MIB) + bytes(100))
        await calls[2].write(struct.pack(">BI", 0, 4 * MIB) + bytes(100))
        assert await calls[2].status() == (8, "too many long messages on one connection")
        await calls[0].drop()
        await calls[3].write(struct.pack(">BI", 0, 4 * MIB))
        await calls[3].write(bytes(MIB))  # more than a window: it is being taken
        await calls[1].drop()
        await calls[3].drop()


async def test_answers_that_nobody_takes_are_not_kept(site: Served) -> None:
    async with connected(site.path) as client:
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        call = await client.call()
        for _ in range(call_module.MAX_QUEUED + 1):
            await call.send_data(b"", connect_id=9)
        other = await client.call()
        client.h2.increment_flow_control_window(100, other.id)
        await client.flush()
        assert (await other.dial(f"10.0.0.1:{ECHO}")).connect_id  # by now, all before it was seen
        client.h2.increment_flow_control_window(100_000, call.id)
        await client.flush()
        for _ in range(call_module.MAX_QUEUED + 1):
            assert (await call.receive()).close_response.connect_id == 9
        assert await call.status() == (8, "answers are not taken")


async def test_a_long_message_for_a_stalled_endpoint_is_taken_and_the_next_waits(site: Served) -> None:
    async with connected(site.path) as client:
        call = await client.tunnel(f"10.0.0.1:{NEVER_READS}")
        await call.send_data(bytes(2 * MIB))
        other = await client.tunnel(f"10.0.0.1:{ECHO}")
        await other.send_data(b"x")
        assert await other.receive_data(1) == b"x"
        site.far.let_go.set()
        await call.send_data(bytes(2 * MIB))
        await call.ask_to_close()
        assert (await call.receive()).close_response.error == ""
        assert await site.far.endpoints[0].ended == "eof"
        assert len(site.far.endpoints[0].received) == 4 * MIB
