"""Other rules while streams run: what they do not allow ends on both ends with NOT_ALLOWED, all else goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from ipaddress import ip_address

import pytest

from tests.aio.exits.test_acceptor import Echo, opened
from tests.support.acceptors import kept
from tests.support.joined import joined
from tests.support.waits import eventually
from tunnel.aio.exits.acceptor import Request, StreamAcceptor
from tunnel.aio.exits.dialer import dial
from tunnel.aio.exits.policy import Policy
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused, StreamReset
from tunnel.core.wire.target import ServiceTarget, TcpTarget
from tunnel.core.wire.target_rule import TargetRule


@pytest.fixture
async def target() -> AsyncIterator[Echo]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    echo.port = server.sockets[0].getsockname()[1]
    async with server:
        yield echo
        await eventually(lambda: not echo.open)


def policy(*rules: str) -> Policy:
    return Policy([TargetRule.parse(rule) for rule in rules])


async def served(_request: Request) -> None:
    stream = _request.accept()
    while data := await stream.read():
        await stream.write(data)


async def works(stream: Stream) -> None:
    await stream.write(b"ping")
    assert await stream.read() == b"ping"


async def ended(stream: Stream) -> StreamReset:
    with pytest.raises(StreamReset) as reset:
        async with asyncio.timeout(1):
            await stream.read()
    return reset.value


async def test_what_is_not_allowed_any_more_ends_and_what_is_goes_on(target: Echo) -> None:
    by_address, by_name = TcpTarget("127.0.0.1", target.port), TcpTarget("localhost", target.port)
    acceptor = StreamAcceptor(policy("127.0.0.1:*", "localhost:*"), {"echo": served, "gone": served}, {"web": by_name})
    async with joined(kept(acceptor, [])) as both:
        staying = [await opened(both, each) for each in (by_address, ServiceTarget("echo"))]
        gone = [await opened(both, each) for each in (ServiceTarget("web"), ServiceTarget("gone"))]
        assert acceptor.replace(policy("127.0.0.0/8:1-65535"), {"echo": served}) == 2
        for stream in gone:
            reset = await ended(stream)
            assert (reset.code, str(reset)) == (
                Code.NOT_ALLOWED,
                f"{stream.target} is not allowed any more at this end",
            )
        for stream in staying:
            await works(stream)
        await eventually(lambda: target.open == 1)
        assert target.ended == "ConnectionResetError"  # never what looks like a proper end
        with pytest.raises(OpenRefused):
            await opened(both, ServiceTarget("web"))
        assert acceptor.replace(policy(), {}) == 2
        for stream in staying:
            assert (await ended(stream)).code is Code.NOT_ALLOWED
        assert acceptor.replace(policy(), {}) == 0


async def test_a_name_that_leads_elsewhere_now_ends_what_was_opened_by_it(target: Echo) -> None:
    here, there = TcpTarget("127.0.0.1", target.port), TcpTarget("127.0.0.2", target.port)
    acceptor = StreamAcceptor(policy("127.0.0.0/8:*"), {}, {"web": here})
    async with joined(kept(acceptor, [])) as both:
        stream = await opened(both, ServiceTarget("web"))
        assert acceptor.replace(policy("127.0.0.0/8:*"), {}, {"web": there}) == 1
        await ended(stream)


async def test_a_stream_that_is_still_dialled_gets_the_rules_of_its_end(
    target: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    acceptor = StreamAcceptor(policy("127.0.0.1:*"), {})

    async def replaced_meanwhile(*arguments: object) -> object:
        found = await dial(*arguments)  # type: ignore[arg-type]
        acceptor.replace(policy(), {})
        return found

    monkeypatch.setattr("tunnel.aio.exits.acceptor.dial", replaced_meanwhile)
    async with joined(kept(acceptor, [])) as both:
        with pytest.raises(OpenRefused) as refused:
            await opened(both, TcpTarget("127.0.0.1", target.port))
        assert refused.value.code is Code.NOT_ALLOWED


@pytest.mark.parametrize(
    ("rules", "host", "address", "found"),
    [
        (["10.0.0.0/8:80"], "10.1.2.3", "10.1.2.3", "10.0.0.0/8:80"),
        (["10.0.0.0/8:81"], "10.1.2.3", "10.1.2.3", None),
        (["db.example:80"], "db.example", "10.1.2.3", "db.example:80"),
        (["db.example:80"], "10.1.2.3", "10.1.2.3", "db.example:80"),  # as DNS said when it was dialled
        (["db.example:80"], "db.example", "127.0.0.1", None),
    ],
)
def test_the_rule_that_allows(rules: list[str], host: str, address: str, found: str | None) -> None:
    rule = policy(*rules).rule_for(TcpTarget(host, 80), ip_address(address))
    assert (rule.text if rule is not None else None) == found


def test_a_rule_that_stays_holds_for_what_it_allowed() -> None:
    target, address = TcpTarget("10.1.2.3", 80), ip_address("10.1.2.3")
    rule = TargetRule.parse("db.example:80")
    assert policy("db.example:80").still_allows(target, address, rule)
    assert policy("10.0.0.0/8:80").still_allows(target, address, rule)
    assert not policy("other.example:80").still_allows(target, address, rule)
    assert not policy("10.0.0.0/8:81").still_allows(target, address, rule)
