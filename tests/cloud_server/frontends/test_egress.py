"""Two protocols on one socket, told apart by how they begin."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cloud_server.frontends import egress
from cloud_server.frontends.egress import PREFACE, EgressFrontend
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.listener import Listener


@asynccontextmanager
async def served(folder: Path) -> AsyncIterator[Path]:
    """Front ends that say who they are and all that they got."""

    async def say(name: bytes, conn: Conn) -> None:
        received = b""
        while data := await conn.read():
            received += data
        await conn.write(name + b":" + received)

    listener = Listener("egress", EgressFrontend(lambda c: say(b"connect", c), lambda c: say(b"grpc", c)).handle)
    path = folder / "egress.sock"
    await listener.listen_unix(path)
    try:
        yield path
    finally:
        await listener.aclose()


async def ask(path: Path, *pieces: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(str(path))
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("said", "name"),
    [
        (b"CONNECT box-7:22 HTTP/1.1\r\n\r\n", b"connect"),
        (b"C", b"connect"),
        (b"GET / HTTP/1.1\r\n\r\n", b"connect"),
        (b"PRI", b"connect"),
        (b"PRI / HTTP/1.1\r\n\r\n", b"connect"),
        (b"PUT / HTTP/1.1\r\n\r\n", b"connect"),
        (b"\x16\x03\x01", b"connect"),
        (PREFACE, b"grpc"),
        (PREFACE + b"\r\n\r\nSM\r\n\r\n" + bytes(100_000), b"grpc"),
    ],
)
async def test_who_gets_a_connection(tmp_path: Path, said: bytes, name: bytes) -> None:
    async with served(tmp_path) as path:
        assert await ask(path, said) == name + b":" + said


@pytest.mark.parametrize("said", [b"CONNECT x", PREFACE + b"\r\n", b"PRI * HTTP/1.1"])
async def test_byte_by_byte(tmp_path: Path, said: bytes) -> None:
    async with served(tmp_path) as path:
        answer = await ask(path, *(bytes([byte]) for byte in said))
    assert answer.partition(b":")[2] == said


async def test_one_byte_may_be_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "FIRST_BYTES_S", 3600.0)
    handed = asyncio.Event()

    async def connect(conn: Conn) -> None:
        handed.set()

    async def never(conn: Conn) -> None:
        raise AssertionError("this is no preface")

    listener = Listener("egress", EgressFrontend(connect, never).handle)
    await listener.listen_unix(tmp_path / "egress.sock")
    _, writer = await asyncio.open_unix_connection(str(tmp_path / "egress.sock"))
    writer.write(b"C")
    await handed.wait()
    writer.close()
    await listener.aclose()


async def test_one_that_says_nothing_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "FIRST_BYTES_S", 0.02)
    async with served(tmp_path) as path:
        reader, writer = await asyncio.open_unix_connection(str(path))
        assert await reader.read() == b""
        writer.close()
        assert await ask(path) == b""


async def test_half_a_preface_is_handed_on_when_its_time_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(egress, "FIRST_BYTES_S", 0.02)
    async with served(tmp_path) as path:
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(PREFACE[:5])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await reader.read(1)
        writer.write_eof()
        assert await reader.read() == b"connect:" + PREFACE[:5]
        writer.close()
