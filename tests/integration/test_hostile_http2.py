"""A joined box speaks HTTP/2 by hand to the port for boxes: odd methods, header bombs, floods; nothing is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import hpack
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, Event, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from hyperframe.frame import ContinuationFrame, Frame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame

from tests.support.cluster import Cluster, cluster
from tests.support.hostile_agent import stolen_context
from tests.support.targets import Target
from tests.support.tunnel import exchange
from tunnel.aio.carriers.methods import CONNECT, RENEW

MIB = 1024 * 1024
GRACE_S = 10.0
HELD_S = 2.0
"""A flood may be held back for good: that ends it too."""
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
Headers = list[tuple[str, str]]


@pytest.fixture(scope="module")
def echo() -> Iterator[Target]:
    with Target("echo") as target:
        yield target


@pytest.fixture(scope="module")
def cloud(echo: Target) -> Iterator[Cluster]:
    with cluster() as made:
        made.start()
        made.join("mallory")
        made.join("box-7", allow=[f"127.0.0.1:{echo.port}"])
        made.start_box("box-7")
        yield made


@pytest.fixture(autouse=True)
def unharmed(cloud: Cluster, echo: Target) -> Iterator[None]:
    """After each attack: an honest box's connection is as it was, and the server holds no more than before."""
    server = cloud.server
    before = server.rss_bytes()
    with cloud.dial(f"box-7:{echo.port}") as sock:
        yield
        assert exchange(sock) == b"ping"
    assert server.rss_bytes() - before < 60 * MIB
    assert "Traceback" not in server.log_text()


def state(cloud: Cluster) -> Path:
    return cloud.boxes["mallory"].state


def headers(method: str = "POST", path: str = CONNECT, **more: str) -> Headers:
    rest = {"content-type": "application/grpc", "te": "trailers", **more}
    return [(":method", method), (":scheme", "https"), (":path", path), (":authority", "x"), *rest.items()]


async def ask(cloud: Cluster, request: Headers, body: bytes = b"\0\0\0\0\0") -> tuple[dict[str, str], bytes]:
    """The headers, trailers and data that come back; `reset` among the headers when the answer is none."""
    context = stolen_context(state(cloud))
    reader, writer = await asyncio.open_connection("127.0.0.1", cloud.tunnel_port, ssl=context)
    config = H2Configuration(
        header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False
    )  # fmt: skip
    http = H2Connection(config)
    http.initiate_connection()
    http.send_headers(1, request)
    http.send_data(1, body, end_stream=True)
    found: dict[str, str] = {}
    data = b""
    try:
        async with asyncio.timeout(GRACE_S):
            while True:
                writer.write(http.data_to_send())
                events: list[Event] = http.receive_data(await reader.read(65536))
                for event in events:
                    if isinstance(event, ResponseReceived | TrailersReceived):
                        found |= {str(name): str(value) for name, value in event.headers}
                    elif isinstance(event, DataReceived):
                        data += event.data
                    elif isinstance(event, StreamReset):
                        found["reset"] = ErrorCodes(event.error_code).name
                    if isinstance(event, StreamEnded | StreamReset):
                        return found, data
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    "request_headers",
    [
        headers(path="/"),
        headers(path=""),
        headers(path="*"),
        headers(path="/" + CONNECT),
        headers(path=CONNECT + "/"),
        headers(path=CONNECT + "?x"),
        headers(path=CONNECT + "\0"),
        headers(path=CONNECT.lower()),
        headers(path=CONNECT.replace("/Connect", "%2fConnect")),
        headers(path="/x/.." + CONNECT),
        headers(path="https://x" + CONNECT),
        headers(path="/grpc.health.v1.Health/Check"),
        headers(path="/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"),
        headers(path="/grpc.channelz.v1.Channelz/GetServers"),
        headers(path="/api/v1/nodes"),
        headers(path="/" + "x" * 7000),
    ],
    ids=lambda request: repr(request[2][1][:40]),
)
async def test_another_method_is_not_there(cloud: Cluster, request_headers: Headers) -> None:
    answer, data = await ask(cloud, request_headers)
    assert answer["grpc-status"] == "12"
    assert "longline-accepted" not in answer
    assert not data


@pytest.mark.parametrize("verb", ["GET", "PUT", "DELETE", "CONNECT", "PRI", "post", ""])
async def test_another_verb_is_no_call(cloud: Cluster, verb: str) -> None:
    answer, data = await ask(cloud, headers(verb))
    assert "longline-accepted" not in answer
    assert answer.get("grpc-status") != "0"
    assert not data


async def test_headers_name_nobody(cloud: Cluster) -> None:
    """Whatever a header claims, the certificate decides."""
    claims = dict.fromkeys(("x-forwarded-client-cert", "x-spiffe-id", "agent"), "spiffe://longline/agent/box-7")
    seen = len(cloud.server.log_text())
    answer, data = await ask(cloud, headers(**claims))
    assert b"not a Hello" in data
    said = cloud.server.wait_for_log("not a Hello", after=seen)
    refused = [line for line in said.splitlines() if "not a Hello" in line]
    assert all('"agent":"mallory"' in line for line in refused)
    assert answer["grpc-status"] == "0"


async def test_a_compressed_message_is_refused(cloud: Cluster) -> None:
    answer, _ = await ask(cloud, headers(**{"grpc-encoding": "gzip"}), b"\1\0\0\0\5xxxxx")
    assert answer["grpc-status"] == "12"
    answer, _ = await ask(cloud, headers(), b"\1\0\0\0\5xxxxx")
    assert answer["grpc-status"] != "0"


@pytest.mark.parametrize("path", [CONNECT, RENEW])
async def test_a_message_of_four_gibibytes_is_refused_by_its_length(cloud: Cluster, path: str) -> None:
    answer, _ = await ask(cloud, headers(path=path), b"\0\xff\xff\xff\xff" + bytes(10_000))
    assert answer["grpc-status"] == "8"


# Floods. gRPC may take them or hang up; what counts is what `unharmed` sees.


def serialized(frame: Frame, *, ends_headers: bool = False) -> bytes:
    if ends_headers:
        frame.flags.add("END_HEADERS")
    return frame.serialize()


def endless_headers() -> Iterator[bytes]:
    yield HeadersFrame(1, b"\x00\x01a\x64" + b"x" * 100).serialize()
    literal = (b"\x00\x01a\x64" + b"x" * 100) * 150
    for _ in range(2000):
        yield ContinuationFrame(1, literal).serialize()


def header_bomb() -> Iterator[bytes]:
    """A header of 3 kB that is named in one byte, 15,000 times in each of a hundred requests."""
    encoder = hpack.Encoder()
    bomb = ("bomb", "x" * 3000)
    first = encoder.encode([*headers(), bomb])
    name = encoder.encode([bomb])
    for number in range(100):
        block = (encoder.encode(headers()) if number else first) + name * (15_000 // len(name))
        yield serialized(HeadersFrame(2 * number + 1, block[:16_000]), ends_headers=True)


def rapid_resets() -> Iterator[bytes]:
    encoder = hpack.Encoder()
    for number in range(20_000):
        opening = serialized(HeadersFrame(2 * number + 1, encoder.encode(headers())), ends_headers=True)
        yield opening + RstStreamFrame(2 * number + 1, error_code=8).serialize()


def open_calls() -> Iterator[bytes]:
    encoder = hpack.Encoder()
    for number in range(20_000):
        yield serialized(HeadersFrame(2 * number + 1, encoder.encode(headers())), ends_headers=True)


def pings() -> Iterator[bytes]:
    many = PingFrame(0, b"12345678").serialize() * 1000
    yield from (many for _ in range(1000))


def settings() -> Iterator[bytes]:
    many = SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 1}).serialize() * 1000
    yield from (many for _ in range(1000))


def rubbish() -> Iterator[bytes]:
    yield from (bytes(range(256)) * 256 for _ in range(100))


FLOODS = [endless_headers, header_bomb, rapid_resets, open_calls, pings, settings, rubbish]


@pytest.mark.parametrize("reads", [True, False], ids=["reads", "reads nothing"])
@pytest.mark.parametrize("flood", FLOODS)
async def test_a_flood(cloud: Cluster, flood: Callable[[], Iterator[bytes]], *, reads: bool) -> None:
    context = stolen_context(state(cloud))
    reader, writer = await asyncio.open_connection("127.0.0.1", cloud.tunnel_port, ssl=context)
    if not reads:
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's own transports all have it
    writer.write(PREFACE)
    try:
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(_read_away(reader))
            with suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(HELD_S):
                    for piece in flood():
                        writer.write(piece)
                        await writer.drain()
            reading.cancel()
    finally:
        writer.transport.abort()


async def _read_away(reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionError):
        while await reader.read(65536):
            pass
