"""Dials real sockets: races between addresses, deadlines, cancelled dials, and what the opener is told."""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest

from tests.support.targets import refusing_port, silent_port
from tests.support.waits import scaled_s
from tunnel.aio.exits import dialer
from tunnel.aio.exits.dialer import dial
from tunnel.aio.exits.policy import Policy
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.tcp import connect_tcp
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.target import TcpTarget
from tunnel.core.wire.target_rule import Address, TargetRule

ANY = ("127.0.0.0/8:*", "[::1]:*", "192.0.2.0/24:*")


def box(*names: str) -> Policy:
    """A box that allows its loopback, on which every name has these addresses."""

    async def resolve(host: str, port: int) -> list[Address]:
        return [ip_address(name) for name in names]

    return Policy([TargetRule.parse(rule) for rule in ANY], resolve)


@asynccontextmanager
async def greeter(hosts: Sequence[str] = ("127.0.0.1",)) -> AsyncIterator[int]:
    """A server on one port of several addresses that says which address was reached."""

    async def greet(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(writer.get_extra_info("sockname")[0].encode())
        writer.close()

    server = await asyncio.start_server(greet, hosts[0], 0)
    port = server.sockets[0].getsockname()[1]
    servers = [server, *[await asyncio.start_server(greet, host, port) for host in hosts[1:]]]
    try:
        yield port
    finally:
        for one in servers:
            one.close()


async def reached(target: TcpTarget, policy: Policy, deadline_s: float = 5.0) -> tuple[str, str]:
    conn, address = await dial(target, policy, deadline_s)
    said = await conn.read()
    await conn.aclose()
    return said.decode(), address


async def refusal(target: TcpTarget, policy: Policy, deadline_s: float = 5.0) -> OpenRefused:
    with pytest.raises(OpenRefused) as caught:
        await dial(target, policy, deadline_s)
    return caught.value


async def test_an_address_is_dialled() -> None:
    async with greeter() as port:
        assert await reached(TcpTarget("127.0.0.1", port), box()) == ("127.0.0.1", f"127.0.0.1:{port}")


async def test_localhost_is_whatever_listens() -> None:
    async with greeter(["::1"]) as port:
        assert await reached(TcpTarget("localhost", port), box()) == ("::1", f"[::1]:{port}")


async def test_a_refused_address_makes_way_for_the_next_at_once() -> None:
    async with greeter(["127.0.0.3"]) as port:
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        assert (await reached(TcpTarget("name", port), box("127.0.0.2", "::1", "127.0.0.3")))[0] == "127.0.0.3"
        assert loop.time() - start_s < dialer.ATTEMPT_DELAY_S


async def test_a_silent_address_is_overtaken() -> None:
    with silent_port() as port:
        async with asyncio.timeout(5):
            server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.9", port)
            loop = asyncio.get_running_loop()
            start_s = loop.time()
            conn, address = await dial(TcpTarget("name", port), box("127.0.0.1", "127.0.0.9"), 5.0)
            assert address == f"127.0.0.9:{port}"
            assert dialer.ATTEMPT_DELAY_S * 0.9 <= loop.time() - start_s < scaled_s(2.0)
            conn.reset()
            server.close()


async def test_a_refusal_is_told_with_its_address() -> None:
    port = refusing_port()
    refused = await refusal(TcpTarget("localhost", port), box())
    assert refused.code is Code.REFUSED
    assert str(refused) == f"127.0.0.1:{port}: connection refused; [::1]:{port}: connection refused"


async def test_silence_ends_at_the_deadline() -> None:
    with silent_port() as port:
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        refused = await refusal(TcpTarget("127.0.0.1", port), box(), 0.5)
        assert refused.code is Code.DEADLINE
        assert "no answer within 0.5 s" in str(refused)
        assert loop.time() - start_s <= scaled_s(0.6)


async def test_a_slow_resolver_counts_towards_the_deadline() -> None:
    async def never(host: str, port: int) -> list[Address]:
        await asyncio.Event().wait()
        return []

    slow = Policy([TargetRule.parse("10.0.0.1:80")], never)
    assert (await refusal(TcpTarget("slow.example", 80), slow, 0.3)).code is Code.DEADLINE


async def test_what_is_not_allowed_is_not_dialled() -> None:
    async with greeter() as port:
        nothing = Policy([])
        assert (await refusal(TcpTarget("127.0.0.1", port), nothing)).code is Code.NOT_ALLOWED


async def test_a_cancelled_dial_closes_its_sockets() -> None:
    # The leak watch of every test looks for open sockets at its end.
    with silent_port() as port:
        dialling = asyncio.get_running_loop().create_task(dial(TcpTarget("name", port), box("127.0.0.1", "::1"), 30.0))
        async with asyncio.timeout(5):
            while not any(task.get_name().startswith("dial ") for task in asyncio.all_tasks()):
                await asyncio.sleep(0.01)
        dialling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dialling


async def test_a_dial_that_is_cancelled_when_one_address_answered_closes_that_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def reluctant(factory: type[Conn], host: str, port: int) -> Conn:
        if host == "127.0.0.1":
            return await connect_tcp(factory, host, port)
        try:
            await asyncio.Event().wait()
            raise AssertionError
        finally:  # the first has answered: this one is called off
            dialling.cancel()
            await asyncio.sleep(0)

    async with greeter() as port:
        monkeypatch.setattr(dialer, "connect_tcp", reluctant)
        monkeypatch.setattr(dialer, "ATTEMPT_DELAY_S", 0.0)
        dialling = asyncio.get_running_loop().create_task(
            dial(TcpTarget("name", port), box("127.0.0.2", "127.0.0.1"), 5.0)
        )
        with pytest.raises(asyncio.CancelledError):
            await dialling


async def test_no_way_to_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = await refusal(TcpTarget("127.0.0.1", 1), box())
    assert refused.code is Code.REFUSED

    async def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    monkeypatch.setattr(dialer, "connect_tcp", fail)
    refused = await refusal(TcpTarget("192.0.2.1", 80), box())
    assert refused.code is Code.UNREACHABLE
    assert str(refused) == "192.0.2.1:80: network is unreachable"


async def test_too_few_descriptors_is_our_limit() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    probe = socket.socket()
    lowest = probe.fileno()
    probe.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        refused = await refusal(TcpTarget("127.0.0.1", 9), box())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert refused.code is Code.LIMIT_EXCEEDED


def test_families_alternate() -> None:
    four, six = [[ip_address(text) for text in texts] for texts in (["1.1.1.1", "1.1.1.2", "1.1.1.3"], ["::2", "::3"])]
    assert dialer._interleave([*six, *four]) == [six[0], four[0], six[1], four[1], four[2]]
    assert dialer._interleave(four) == four
