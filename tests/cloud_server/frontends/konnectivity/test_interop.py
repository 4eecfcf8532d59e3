"""A client that is not ours: gRPC's own library against the front end."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.konnectivity_pb2 import CloseRequest, Data, DialRequest, Packet, PacketType
from tests.cloud_server.frontends.konnectivity.served import ECHO, REFUSES, SINK, SOURCE, Served, served

MIB = 1024 * 1024


class Call:
    def __init__(self, stream: grpc.aio.StreamStreamCall[Any, Packet]) -> None:
        self.stream = stream
        self.connect_id = 0

    async def dial(self, port: int) -> str:
        """Dial; returns the error."""
        request = DialRequest(protocol="tcp", address=f"10.0.0.1:{port}", random=42)
        await self.stream.write(Packet(dial_request=request))
        answer = (await self.receive()).dial_response
        assert answer.random == 42
        self.connect_id = answer.connect_id
        return answer.error

    async def send_data(self, data: bytes) -> None:
        await self.stream.write(Packet(type=PacketType.DATA, data=Data(connect_id=self.connect_id, data=data)))

    async def receive(self) -> Packet:
        packet = await self.stream.read()
        assert isinstance(packet, Packet), packet
        return packet


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Served]:
    async with served(tmp_path) as made:
        yield made


@asynccontextmanager
async def called(site: Served, method: str = "/ProxyService/Proxy") -> AsyncIterator[Call]:
    async with grpc.aio.insecure_channel(f"unix:{site.path}") as channel:
        proxy = channel.stream_stream(
            method, request_serializer=Packet.SerializeToString, response_deserializer=Packet.FromString
        )
        stream = proxy()
        yield Call(stream)
        stream.cancel()


async def test_echo_and_close(site: Served) -> None:
    async with called(site) as call:
        assert await call.dial(ECHO) == ""
        await call.send_data(b"hello")
        assert (await call.receive()).data.data == b"hello"
        close = CloseRequest(connect_id=call.connect_id)
        await call.stream.write(Packet(type=PacketType.CLOSE_REQ, close_request=close))
        assert (await call.receive()).close_response.connect_id == call.connect_id
        assert await call.stream.read() is grpc.aio.EOF
        assert await call.stream.code() is grpc.StatusCode.OK


async def test_an_error(site: Served) -> None:
    async with called(site) as call:
        assert await call.dial(REFUSES) == "LL4201: 10.0.0.1:1: connection refused"
        assert await call.stream.read() is grpc.aio.EOF
        assert await call.stream.code() is grpc.StatusCode.OK


async def test_much_data_both_ways(site: Served) -> None:
    site.far.payload = random.Random(1).randbytes(16 * MIB)
    async with called(site) as down, called(site) as up:
        assert await down.dial(SOURCE) == ""
        received = hashlib.sha256()
        while (packet := await down.receive()).type == PacketType.DATA:
            received.update(packet.data.data)
        assert received.digest() == hashlib.sha256(site.far.payload).digest()
        assert packet.type == PacketType.CLOSE_RSP

        assert await up.dial(SINK) == ""
        for start in range(0, len(site.far.payload), MIB):
            await up.send_data(site.far.payload[start : start + MIB])
        await up.stream.done_writing()
        assert await site.far.endpoints[1].ended == "eof"
        assert site.far.endpoints[1].received == site.far.payload


async def test_another_method(site: Served) -> None:
    async with called(site, "/AgentService/Connect") as call:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call.stream.read()
        assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
        assert raised.value.details() == "only /ProxyService/Proxy is served here"
