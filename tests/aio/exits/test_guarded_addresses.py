"""Metadata and link-local addresses, by whatever spelling and name: only a rule for exactly that address allows one."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.aio.exits.test_policy import Dns, allowed, policy, refusal
from tunnel.aio.exits.policy import LOOPBACK, Policy, system_resolve
from tunnel.core.wire.audience import Audience
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.faults import METADATA_NOT_NAMED, NOT_ALLOWED_BY_BOX, RULE_FOR_OTHERS
from tunnel.core.wire.metadata_addresses import NETWORKS, is_metadata
from tunnel.core.wire.principal import NOBODY, Principal, PrincipalKind
from tunnel.core.wire.target import TcpTarget
from tunnel.core.wire.target_rule import TargetRule, normal_address

GUARDED = [
    "169.254.169.254", "169.254.170.2", "169.254.0.1", "100.100.100.200", "168.63.129.16",
    "fd00:ec2::254", "fe80::1", "febf::1",
]  # fmt: skip


def everything(dns: Dns | None = None) -> Policy:
    return policy("0.0.0.0/0:*", "[::/0]:*", "169.254.0.0/16:*", "[fe80::/10]:*", "[64:ff9b::/96]:*", dns=dns)


def forms(number: int) -> list[str]:
    """Every spelling of an IPv4 address that some part of the way may take for it."""
    four = ipaddress.IPv4Address(number)
    a, b, c, d = four.packed
    return [
        str(four), f"::ffff:{four}", f"0:0:0:0:0:ffff:{a:02x}{b:02x}:{c:02x}{d:02x}", f"64:ff9b::{four}",
        f"64:ff9b:1::{four}", f"2002:{a:02x}{b:02x}:{c:02x}{d:02x}::1",
        str(number), hex(number), f"{a}.{b}.{c << 8 | d}",
        f"{a}.{b << 16 | c << 8 | d}", f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}",
    ]  # fmt: skip


@st.composite
def guarded(draw: st.DrawFn) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    network = draw(st.sampled_from(NETWORKS))
    first, size = int(network.network_address), network.num_addresses
    return ipaddress.ip_address(first + draw(st.integers(0, size - 1))) if network.version == 4 else (
        ipaddress.IPv6Address(first + draw(st.integers(0, size - 1)))
    )  # fmt: skip


async def refused(rules: Policy, host: str) -> OpenRefused:
    error = await refusal(rules, host, 80)
    assert (error.code, error.fault) == (Code.NOT_ALLOWED, METADATA_NOT_NAMED)
    return error


@given(address=guarded(), data=st.data())
async def test_no_range_and_no_spelling_covers_one(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address, data: st.DataObject
) -> None:
    spelled = forms(int(address)) if address.version == 4 else [str(address), address.exploded, str(address).upper()]
    host = data.draw(st.sampled_from(spelled))
    # What is no literal to us goes to the resolver, as on a box; it reads the old spellings as numbers, without DNS.
    rules = Policy(everything().rules, system_resolve)
    error = await refused(rules, host)
    assert "only a rule for exactly that address" in error.text


@given(address=guarded())
async def test_only_the_rule_for_exactly_that_address_allows_it(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    written = f"[{address}]" if address.version == 6 else str(address)
    exact = policy(*(rule.text for rule in everything().rules), f"{written}:80")
    assert await allowed(exact, str(address), 80) == [str(address)]
    await refusal(exact, str(address), 81)
    for network in (address.max_prefixlen - 1, address.max_prefixlen - 2):
        around = ipaddress.ip_network(f"{address}/{network}", strict=False)
        wide = policy(f"[{around}]:80" if address.version == 6 else f"{around}:80")
        await refused(wide, str(address))
    if address.version == 4:
        assert await allowed(exact, f"::ffff:{address}", 80) == [str(address)]
        await refused(exact, f"64:ff9b::{address}")  # another address, whatever a translator makes of it


@given(address=st.ip_addresses())
async def test_all_others_are_allowed_as_before(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    plain = normal_address(address)
    if is_metadata(plain) or plain.is_unspecified or plain.is_multicast or str(plain) == "255.255.255.255":
        return
    assert await allowed(everything(), str(address), 80) == [str(plain)]


@pytest.mark.parametrize("address", GUARDED)
async def test_no_answer_of_dns_reaches_one(address: str) -> None:
    dns = Dns({"rebound.example": [address], "both.example": ["10.0.0.1", address]})
    for rules in (everything(dns), policy("rebound.example:80", dns=dns)):
        await refused(rules, "rebound.example")
    # Beside an address that is allowed it is left out, not tried.
    assert await allowed(everything(dns), "both.example", 80) == ["10.0.0.1"]
    assert await allowed(policy("both.example:80", dns=dns), "both.example", 80) == ["10.0.0.1"]
    written = f"[{address}]" if ":" in address else address
    assert await allowed(policy(f"{written}:80", dns=dns), "rebound.example", 80) == [address]


async def test_a_name_that_a_rule_has_does_not_lend_it_to_the_address() -> None:
    dns = Dns({"metadata.internal": ["169.254.169.254"]})
    by_name = policy("metadata.internal:80", dns=dns)
    await refused(by_name, "169.254.169.254")
    target, address = TcpTarget("169.254.169.254", 80), ipaddress.ip_address("169.254.169.254")
    assert by_name.rule_for(target, address) is None
    assert not by_name.still_allows(target, address, None)
    wide = everything()
    assert wide.rule_for(target, address) is None
    assert not wide.still_allows(target, address, None)


# Rules for some users


def for_users(text: str, *users: str, groups: tuple[str, ...] = ()) -> TargetRule:
    rule = TargetRule.parse(text)
    return TargetRule(rule.network, rule.name, rule.ports, rule.text, Audience(users, groups))


def user(name: str, *groups: str) -> Principal:
    return Principal(kind=PrincipalKind.USER, name=name, groups=groups)


async def test_a_rule_for_others_is_named_in_the_refusal() -> None:
    dns = Dns({"db.lan": ["10.0.0.9"]})
    rules = Policy([for_users("10.0.0.0/8:22", "ann", groups=("ops",)), for_users("db.lan:5432", "ann")], dns)
    for who in (user("ann"), user("bob", "ops")):
        assert await rules.permitted(TcpTarget("10.0.0.9", 22), who) == [ipaddress.ip_address("10.0.0.9")]
    for target, rule in ((TcpTarget("10.0.0.9", 22), "10.0.0.0/8:22"), (TcpTarget("db.lan", 5432), "db.lan:5432")):
        for who in (user("bob"), NOBODY):
            with pytest.raises(OpenRefused) as caught:
                await rules.permitted(target, who)
            assert caught.value.fault is RULE_FOR_OTHERS
            assert f"the rule {rule} of this box's [[allow]] rules is for others, not for {who}" in caught.value.text
            assert "ann" not in caught.value.text  # for whom it is, is nobody else's business
    assert "db.lan" not in dns.asked  # nor has the box asked DNS for somebody whom no rule is for
    with pytest.raises(OpenRefused) as caught:
        await rules.permitted(TcpTarget("192.0.2.1", 22), user("bob"))
    assert caught.value.fault is NOT_ALLOWED_BY_BOX


def test_a_connection_goes_on_by_any_rule_for_its_principal() -> None:
    target, address = TcpTarget("127.0.0.1", 22), LOOPBACK[0]
    before = for_users("127.0.0.1:22", "ann")
    assert Policy([for_users("127.0.0.0/8:*", "a*")]).still_allows(target, address, before, user("ann"))
    assert not Policy([for_users("127.0.0.0/8:*", "bob")]).still_allows(target, address, before, user("ann"))
    assert not Policy([for_users("127.0.0.1:22", "bob")]).still_allows(target, address, before, user("ann"))
    assert Policy([before]).rule_for(target, address, user("bob")) is None
    assert Policy([before]).rule_for(target, address, user("ann")) == before
