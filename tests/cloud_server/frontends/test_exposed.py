from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from cloud_server.config import AgentName, ExposeConfig
from cloud_server.frontends.exposed import Exposed
from tests.support.joined import joined
from tests.support.principals import user
from tests.support.waits import eventually
from tunnel.aio.process.config import TargetPattern
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.target import ServiceTarget, Target, TcpTarget


@asynccontextmanager
async def service() -> AsyncIterator[int]:
    """Something at the server that says hello."""

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"hello")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def exposed(port: int) -> Exposed:
    target = TargetPattern(f"127.0.0.1:{port}")
    return Exposed([ExposeConfig(target=target, name="greeter", agents=[AgentName("site-a")])])


@pytest.mark.parametrize("by_name", [True, False])
async def test_an_agent_reaches_what_is_exposed_to_it_and_is_who_its_certificate_says(by_name: bool) -> None:
    async with service() as port:
        target: Target = ServiceTarget("greeter") if by_name else TcpTarget("127.0.0.1", port)
        with capture_logs() as logs:
            async with joined(exposed(port).acceptor("site-a")) as both:
                stream = await both.server.open(target, deadline_s=5, principal=user("admin"))
                assert await stream.read() == b"hello"
                await stream.aclose()
                await eventually(lambda: [line for line in logs if line["event"] == "stream"])
    (record,) = [line for line in logs if line["event"] == "stream"]
    assert record["user"] == "agent:site-a"
    assert record["resolved"] == f"127.0.0.1:{port}"


@pytest.mark.parametrize("by_name", [True, False])
async def test_another_agent_does_not(by_name: bool) -> None:
    async with service() as port:
        target: Target = ServiceTarget("greeter") if by_name else TcpTarget("127.0.0.1", port)
        async with joined(exposed(port).acceptor("site-b")) as both:
            with pytest.raises(OpenRefused, match="site-b") as caught:
                await both.server.open(target, deadline_s=5)
    assert caught.value.code is (Code.NO_SERVICE if by_name else Code.NOT_ALLOWED)


@pytest.mark.parametrize(
    "target", [TcpTarget("127.0.0.1", 1), TcpTarget("localhost", 7443), TcpTarget("169.254.169.254", 80)]
)
async def test_what_is_not_exposed_is_refused(target: TcpTarget) -> None:
    async with joined(Exposed([]).acceptor("site-a")) as both:
        with pytest.raises(OpenRefused, match=r"this server's \[\[expose\]\] rules") as caught:
            await both.server.open(target, deadline_s=5)
    assert caught.value.code is Code.NOT_ALLOWED


async def test_without_a_list_of_agents_it_is_for_all() -> None:
    async with service() as port:
        everyone = Exposed([ExposeConfig(target=TargetPattern(f"127.0.0.1:{port}"))])
        async with joined(everyone.acceptor("site-z")) as both:
            stream = await both.server.open(TcpTarget("127.0.0.1", port), deadline_s=5)
            assert await stream.read() == b"hello"
            await stream.aclose()
