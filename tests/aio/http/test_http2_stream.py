"""Windows of streams, and what clients may try with them."""

from __future__ import annotations

import struct

from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from structlog.testing import capture_logs

from protos.konnectivity_pb2 import Packet
from tests.cloud_server.frontends.konnectivity.raw_http2 import (
    DATA,
    HELLO,
    PADDED,
    RST_STREAM,
    WINDOW_UPDATE,
    data_of,
    dial_of,
    frame,
    raw,
    request,
)
from tests.cloud_server.frontends.konnectivity.served import (
    ECHO,
    NEVER_READS,
    SINK,
    SOURCE,
    Served,
)
from tests.support.konnectivity_client import (
    connected,
)
from tests.support.waits import eventually


async def test_a_window_of_nothing_holds_the_answer_back_until_it_opens(site: Served) -> None:
    async with connected(site.path) as client:
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        call = await client.call()
        await call.ask(f"10.0.0.1:{ECHO}")
        other_end = site.far.endpoints
        await eventually(lambda: other_end)
        client.h2.increment_flow_control_window(3, call.id)
        await client.flush()
        client.h2.increment_flow_control_window(60, call.id)
        await client.flush()
        assert (await call.receive()).dial_response.connect_id


async def test_a_window_that_opens_by_the_settings(site: Served) -> None:
    async with connected(site.path) as client:
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        call = await client.call()
        await call.ask(f"10.0.0.1:{ECHO}")
        await eventually(lambda: site.far.endpoints)
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 65535})
        await client.flush()
        assert (await call.receive()).dial_response.connect_id


async def test_a_window_that_shrinks_below_nothing(site: Served) -> None:
    site.far.payload = bytes(300_000)
    async with connected(site.path) as client:
        call = await client.tunnel(f"10.0.0.1:{SOURCE}")
        call.reading = False
        await eventually(lambda: call.bytes > 60_000)
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1})
        await client.flush()
        await (await client.call()).ask(f"10.0.0.1:{SINK}")
        await eventually(lambda: len(site.far.endpoints) == 2)
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 65535})
        await call.take()
        client.h2.increment_flow_control_window(400_000, call.id)
        await client.flush()
        _, closed = await call.receive_until_closed()
        assert closed.error == ""


async def test_a_window_byte_by_byte(site: Served) -> None:
    async with connected(site.path) as client:
        client.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 1})
        call = await client.call()
        await call.ask(f"10.0.0.1:{ECHO}")
        assert (await call.receive()).dial_response.connect_id


async def test_a_stream_window_beyond_its_end_ends_the_stream(site: Served) -> None:
    most = frame(WINDOW_UPDATE, b"\x7f\xff\xff\xff", stream=1)
    async with raw(site.path, HELLO + request(1) + most * 2) as client:
        assert struct.unpack(">I", await client.until(RST_STREAM))[0] == ErrorCodes.FLOW_CONTROL_ERROR


async def test_a_connection_window_beyond_its_end_ends_the_connection(site: Served) -> None:
    async with raw(site.path, HELLO + frame(WINDOW_UPDATE, b"\x7f\xff\xff\xff") * 2) as client:
        assert await client.goaway() == ErrorCodes.FLOW_CONTROL_ERROR


async def test_a_client_that_sends_beyond_its_window(site: Served) -> None:
    async with raw(site.path, HELLO + request(1) + frame(DATA, dial_of(NEVER_READS), stream=1)) as client:
        number = Packet.FromString((await client.until(DATA))[5:]).dial_response.connect_id
        piece = frame(DATA, data_of(number, bytes(16000)), stream=1)
        with capture_logs() as logs:
            await client.send(piece * 200)
            await client.ended()
    assert [line["reason"] for line in logs if line["event"] == "client broke HTTP/2"] == [
        "Flow control window shrunk below 0"
    ]
    site.far.let_go.set()
    assert await site.far.endpoints[0].ended == "connection_reset"


async def test_frames_that_are_too_long(site: Served) -> None:
    async with raw(site.path, HELLO + request(1) + frame(DATA, bytes(16385), stream=1)) as client:
        assert await client.goaway() == ErrorCodes.FRAME_SIZE_ERROR


async def test_padding_is_given_back(site: Served) -> None:
    async with raw(site.path, HELLO + request(1) + frame(DATA, dial_of(SINK), stream=1)) as client:
        number = Packet.FromString((await client.until(DATA))[5:]).dial_response.connect_id
        padded = frame(DATA, b"\xff" + data_of(number, b"x") + bytes(255), stream=1, flags=PADDED)
        await client.send(padded * 3000)
        await eventually(lambda: len(site.far.endpoints[0].received) == 3000)


async def test_data_for_a_call_that_is_over_does_not_use_the_connection_up(site: Served) -> None:
    async with connected(site.path) as client:
        for _ in range(2):
            call = await client.call(path="/Other/Call")
            await call.status()
        over = b"".join(frame(DATA, bytes(16384), stream=1) for _ in range(3))
        for _ in range(30):  # 1.4 MiB, more than the connection's window
            await client.write(over)
        other = await client.tunnel(f"10.0.0.1:{ECHO}")
        await other.send_data(bytes(100_000))
        await other.receive_data(100_000)
