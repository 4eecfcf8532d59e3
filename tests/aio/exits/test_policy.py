"""What a box allows: host x port x IPv4, IPv6, mapped and DNS name, and answers of DNS that change or lie."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

import pytest

from tests.support.waits import scaled_s
from tunnel.aio.exits.policy import Policy, system_resolve
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.target import TcpTarget
from tunnel.core.wire.target_rule import Address, TargetRule


class Dns:
    """Answers of DNS; a list of several answers gives one after the other."""

    def __init__(self, names: Mapping[str, Sequence[str]]) -> None:
        self.names = dict(names)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[Address]:
        self.asked.append(host)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [ip_address(address) for address in self.names[host]]


def policy(*rules: str, dns: Dns | None = None) -> Policy:
    return Policy([TargetRule.parse(rule) for rule in rules], dns or Dns({}))


async def allowed(policy: Policy, host: str, port: int) -> list[str]:
    return [str(address) for address in await policy.permitted(TcpTarget(host, port))]


async def refusal(policy: Policy, host: str, port: int) -> OpenRefused:
    with pytest.raises(OpenRefused) as caught:
        await policy.permitted(TcpTarget(host, port))
    return caught.value


@pytest.mark.parametrize(
    ("rule", "host", "port", "addresses"),
    [
        ("127.0.0.1:22", "127.0.0.1", 22, ["127.0.0.1"]),
        ("127.0.0.1:22", "::ffff:127.0.0.1", 22, ["127.0.0.1"]),
        ("127.0.0.1:22", "localhost", 22, ["127.0.0.1"]),
        ("[::1]:22", "localhost", 22, ["::1"]),
        ("localhost:22", "localhost", 22, ["127.0.0.1", "::1"]),
        ("localhost:22", "LocalHost.", 22, ["127.0.0.1", "::1"]),
        ("localhost:22", "127.0.0.1", 22, ["127.0.0.1"]),
        ("10.1.0.0/16:80,443", "10.1.0.9", 443, ["10.1.0.9"]),
        ("10.1.0.0/16:80,443", "::ffff:10.1.0.9", 443, ["10.1.0.9"]),
        ("10.1.0.0/16:80", "both.example", 80, ["10.1.0.9"]),
        ("[fd00::/8]:80", "both.example", 80, ["fd00::9"]),
        ("[fd00::/8]:80", "fd00::9", 80, ["fd00::9"]),
        ("both.example:80", "both.example", 80, ["10.1.0.9", "fd00::9"]),
        ("both.example:80", "BOTH.example.", 80, ["10.1.0.9", "fd00::9"]),
        ("both.example:80", "10.1.0.9", 80, ["10.1.0.9"]),
        ("both.example:80", "alias.example", 80, ["10.1.0.9"]),
        ("169.254.169.254:80", "169.254.169.254", 80, ["169.254.169.254"]),
    ],
)
async def test_allowed(rule: str, host: str, port: int, addresses: list[str]) -> None:
    both = ["10.1.0.9", "fd00::9"]
    dns = Dns({"both.example": both, "BOTH.example.": both, "alias.example": ["10.1.0.9", "10.9.9.9"]})
    assert await allowed(policy("192.0.2.1:1", rule, dns=dns), host, port) == addresses


@pytest.mark.parametrize(
    ("rule", "host", "port"),
    [
        ("127.0.0.1:22", "127.0.0.1", 23),
        ("127.0.0.1:22", "127.0.0.2", 22),
        ("127.0.0.1:22", "::1", 22),
        ("127.0.0.1:22", "::127.0.0.1", 22),
        ("[::1]:22", "127.0.0.1", 22),
        ("10.1.0.0/16:80", "10.2.0.1", 80),
        ("10.1.0.0/16:80", "other.example", 80),
        ("both.example:80", "10.1.0.10", 80),
        ("both.example:80", "both.example", 81),
        ("both.example:80", "both.example.other.example", 81),
        ("gone.example:80", "10.1.0.9", 80),
        ("0.0.0.0/0:*", "::1", 22),
        ("0.0.0.0/0:*", "0.0.0.0", 22),
        ("0.0.0.0/0:*", "::ffff:0.0.0.0", 22),
        ("0.0.0.0/0:*", "224.0.0.1", 22),
        ("0.0.0.0/0:*", "255.255.255.255", 22),
        ("[::/0]:*", "::", 22),
        ("[::/0]:*", "ff02::1", 22),
        ("[::/0]:*", "127.0.0.1", 22),
        # No range covers a metadata or link-local address, by whatever spelling.
        ("0.0.0.0/0:*", "169.254.169.254", 80),
        ("169.254.0.0/16:*", "169.254.169.254", 80),
        ("0.0.0.0/0:*", "100.100.100.200", 80),
        ("0.0.0.0/0:*", "::ffff:168.63.129.16", 80),
        ("0.0.0.0/0:*", "0xa9fea9fe", 80),
        ("[::/0]:*", "fd00:ec2::254", 80),
        ("[::/0]:*", "64:ff9b::a9fe:a9fe", 80),
        ("[::/0]:*", "fe80::1", 80),
        ("169.254.169.254:80", "169.254.169.253", 80),
        # What DNS says must not lead to the box itself, nor to its link: a rule with the address must.
        ("evil.example:80", "evil.example", 80),
        ("evil.example:80", "127.0.0.1", 80),
        ("evil.example:80", "169.254.169.254", 80),
        ("evil.example:80", "fe80::1", 80),
    ],
)
async def test_denied(rule: str, host: str, port: int) -> None:
    dns = Dns(
        {
            "both.example": ["10.1.0.9", "fd00::9"],
            "other.example": ["10.2.0.1"],
            "0xa9fea9fe": ["169.254.169.254"],
            "evil.example": ["127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "0.0.0.0"],
        }
    )
    assert (await refusal(policy(rule, dns=dns), host, port)).code is Code.NOT_ALLOWED


async def test_without_rules_everything_is_denied() -> None:
    dns = Dns({"db.example": ["10.0.0.1"]})
    for host in ("127.0.0.1", "localhost", "db.example", "::1"):
        assert (await refusal(policy(dns=dns), host, 22)).code is Code.NOT_ALLOWED
    assert dns.asked == []


async def test_a_port_without_rules_asks_no_dns() -> None:
    dns = Dns({"secret.exfiltrated.example": ["10.0.0.1"]})
    await refusal(policy("10.0.0.1:22", dns=dns), "secret.exfiltrated.example", 53)
    assert dns.asked == []


async def test_only_the_allowed_addresses_of_a_name_are_dialled() -> None:
    dns = Dns({"mixed.example": ["10.1.0.9", "169.254.169.254", "127.0.0.1", "10.1.0.10"]})
    assert await allowed(policy("10.1.0.0/16:80", dns=dns), "mixed.example", 80) == ["10.1.0.9", "10.1.0.10"]
    assert await allowed(policy("mixed.example:80", dns=dns), "mixed.example", 80) == ["10.1.0.9", "10.1.0.10"]


async def test_each_open_resolves_once_and_dials_that_answer() -> None:
    dns = Dns({"turns.example": ["10.1.0.9"]})
    rules = policy("10.1.0.0/16:80", dns=dns)
    assert await allowed(rules, "turns.example", 80) == ["10.1.0.9"]
    assert dns.asked == ["turns.example"]
    dns.names["turns.example"] = ["169.254.169.254"]
    assert (await refusal(rules, "turns.example", 80)).code is Code.NOT_ALLOWED


async def test_the_texts_name_what_was_dialled() -> None:
    dns = Dns({"db.example": ["10.1.0.9", "fd00::9"]})
    rules = policy("192.0.2.1:80", dns=dns)
    assert str(await refusal(rules, "10.0.0.1", 80)) == "10.0.0.1:80 is not allowed by this box's [[allow]] rules"
    assert "db.example:80 (10.1.0.9:80, [fd00::9]:80)" in str(await refusal(rules, "db.example", 80))
    assert "127.0.0.1:80" in str(await refusal(rules, "localhost", 80))
    assert "127.0.0.1:1" in str(await refusal(rules, "localhost", 1))


@pytest.mark.parametrize("host", ["nobody.example", "a" * 64 + ".example", "a..b", "nul\x00.example", ""])
async def test_names_that_do_not_resolve(host: str) -> None:
    refused = await refusal(Policy([TargetRule.parse("10.0.0.1:80")], system_resolve), host, 80)
    assert refused.code is Code.NAME_NOT_FOUND
    assert "\x00" not in str(refused)


@pytest.mark.parametrize("host", ["0x7f000001", "2130706433", "127.1", "017700000001"])
async def test_odd_spellings_of_addresses_gain_nothing(host: str) -> None:
    strict = Policy([TargetRule.parse("10.0.0.1:80")], system_resolve)
    assert (await refusal(strict, host, 80)).code is Code.NOT_ALLOWED


async def test_an_empty_answer_is_no_name() -> None:
    assert (await refusal(policy("10.0.0.1:80", dns=Dns({"empty.example": []})), "empty.example", 80)).code is (
        Code.NAME_NOT_FOUND
    )


async def test_the_system_knows_its_loopback() -> None:
    assert ip_address("127.0.0.1") in await system_resolve("127.0.0.1", 80)


async def test_names_whose_servers_are_silent_hold_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = threading.Event()
    real = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **kwargs: Any) -> Any:
        if host.startswith("silent"):
            silent.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "no answer")
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    create_task = asyncio.get_running_loop().create_task
    waiting = [create_task(system_resolve(f"silent-{number}", 1)) for number in range(30)]
    try:
        async with asyncio.timeout(scaled_s(10)):
            assert ip_address("127.0.0.1") in await system_resolve("localhost", 1)
            assert await asyncio.to_thread(lambda: True)
    finally:
        silent.set()
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert {type(answer) for answer in answers} == {socket.gaierror}
