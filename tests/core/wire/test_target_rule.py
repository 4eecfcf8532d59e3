"""Rules of allow-lists: host x port x IPv4, IPv6, mapped and DNS name."""

from __future__ import annotations

import ipaddress

import pytest

from tunnel.core.wire.target import TcpTarget
from tunnel.core.wire.target_rule import TargetRule, is_dns_name, normal_address


def covers(rule: str, address: str, port: int) -> bool:
    return TargetRule.parse(rule).matches_address(ipaddress.ip_address(address), port)


@pytest.mark.parametrize(
    ("rule", "address", "port", "expected"),
    [
        ("127.0.0.1:22", "127.0.0.1", 22, True),
        ("127.0.0.1:22", "127.0.0.1", 23, False),
        ("127.0.0.1:22", "127.0.0.2", 22, False),
        ("127.0.0.1:22", "::ffff:127.0.0.1", 22, True),
        ("127.0.0.1:22", "::1", 22, False),
        ("10.1.0.0/16:80,443", "10.1.255.255", 443, True),
        ("10.1.0.0/16:80, 443", "10.1.0.9", 443, True),
        ("10.1.0.0/16:80,443", "10.2.0.0", 80, False),
        ("10.1.0.0/16:80,443", "10.1.0.1", 81, False),
        ("10.0.0.1:8000-8999", "10.0.0.1", 8000, True),
        ("10.0.0.1:8000-8999", "10.0.0.1", 8999, True),
        ("10.0.0.1:8000-8999", "10.0.0.1", 9000, False),
        ("10.0.0.1:*", "10.0.0.1", 1, True),
        ("10.0.0.1:*", "10.0.0.1", 65535, True),
        ("[fd00::/64]:443", "fd00::9", 443, True),
        ("[fd00::/64]:443", "fd01::9", 443, False),
        ("[::1]:22", "::1", 22, True),
        ("[::1]:22", "127.0.0.1", 22, False),
        ("[::ffff:10.0.0.1]:22", "10.0.0.1", 22, True),
        ("[::ffff:10.0.0.0/104]:22", "10.9.9.9", 22, True),
        ("[::ffff:10.0.0.0/104]:22", "11.0.0.1", 22, False),
        ("0.0.0.0/0:*", "169.254.169.254", 80, True),
        ("0.0.0.0/0:*", "fe80::1", 80, False),
        ("[::/0]:*", "fe80::1", 80, True),
        ("[::/0]:*", "::ffff:10.0.0.1", 80, False),
        ("db.internal:5432", "10.0.0.1", 5432, False),
    ],
)
def test_addresses(rule: str, address: str, port: int, expected: bool) -> None:
    assert covers(rule, address, port) is expected


def test_names_match_by_name_and_port_only() -> None:
    rule = TargetRule.parse("DB.internal.:5432")
    assert rule.name == "db.internal"
    assert rule.matches_name("db.Internal", 5432)
    assert rule.matches_name("db.internal.", 5432)
    assert not rule.matches_name("db.internal", 5433)
    assert not rule.matches_name("xdb.internal", 5432)
    assert not TargetRule.parse("10.0.0.1:22").matches_name("10.0.0.1", 22)
    assert not TargetRule.parse("10.0.0.1:22").matches_name("", 22)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no port"),
        ("10.0.0.1", "no port"),
        (":22", "no port"),
        ("10.0.0.1:", "no port; write|is no port"),
        ("10.0.0.1:x", "is no port"),
        ("10.0.0.1:-1", "is no port"),
        ("10.0.0.1:0", "out of range"),
        ("10.0.0.1:65536", "out of range"),
        ("10.0.0.1:90-80", "out of range"),
        ("10.0.0.1:80,", "is no port"),
        ("10.1.2.3/16:80", "did you mean 10.1.0.0/16"),
        ("10.1.2:80", "neither"),
        ("1.2.3.4.5:80", "neither"),
        ("10.0.0.0/33:80", "neither"),
        ("fd00::1:22", "brackets"),
        ("[fd00::zz]:22", "neither"),
        ("[10.0.0.1]:22", "only IPv6"),
        ("[db.internal]:22", "neither"),
        ("-x.internal:22", "neither"),
        ("a b:22", "neither"),
        ("a" * 64 + ":22", "neither"),
    ],
)
def test_slips_are_explained(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        TargetRule.parse(text)


def test_normal_address() -> None:
    assert str(normal_address(ipaddress.ip_address("::ffff:1.2.3.4"))) == "1.2.3.4"
    assert str(normal_address(ipaddress.ip_address("fd00::1"))) == "fd00::1"


def test_dns_names() -> None:
    assert is_dns_name("_http._tcp.example.com.")
    assert not is_dns_name(".".join(["a" * 60] * 5))


@pytest.mark.parametrize(
    ("rule", "target"),
    [
        ("127.0.0.1:22", TcpTarget("127.0.0.1", 22)),
        ("[fd00::9]:631", TcpTarget("fd00::9", 631)),
        ("DB.internal:5432", TcpTarget("db.internal", 5432)),
        ("127.0.0.1:22,23", None),
        ("127.0.0.1:22-23", None),
        ("10.0.0.0/31:22", None),
    ],
)
def test_a_rule_for_one_target_names_it(rule: str, target: TcpTarget | None) -> None:
    assert TargetRule.parse(rule).single == target
