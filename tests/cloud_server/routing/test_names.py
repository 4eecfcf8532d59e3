from __future__ import annotations

import ipaddress

import pytest

from cloud_server.routing.names import parse_authority
from cloud_server.routing.route import Route
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.target import ServiceTarget, TcpTarget


@pytest.mark.parametrize(
    ("authority", "agent", "host", "port"),
    [
        ("10.1.0.9.box-7.longline:80", "box-7", "10.1.0.9", 80),
        ("db.internal.box-7.longline:5432", "box-7", "db.internal", 5432),
        ("db.box-7.longline:5432", "box-7", "db", 5432),
        ("DB.Box-7.Longline.:5432", "box-7", "db", 5432),
        ("fd00--9.box-7.longline:443", "box-7", "fd00::9", 443),
        ("--1.box-7.longline:443", "box-7", "::1", 443),
        ("2001-db8-0-0-0-0-0-1.box-7.longline:443", "box-7", "2001:db8::1", 443),
        ("a--b.box-7.longline:443", "box-7", "a::b", 443),
        ("db--main.box-7.longline:443", "box-7", "db--main", 443),
        ("my-db.box-7.longline:443", "box-7", "my-db", 443),
    ],
)
def test_a_host_behind_an_agent(authority: str, agent: str, host: str, port: int) -> None:
    assert parse_authority(authority).route == Route(agent, TcpTarget(host, port))


@pytest.mark.parametrize(
    ("authority", "host", "port"),
    [
        ("box-7:22", "box-7", 22),
        ("BOX-7.:22", "box-7", 22),
        ("7:65535", "7", 65535),
        ("ip-10-0-0-1.ec2.internal:10250", "ip-10-0-0-1.ec2.internal", 10250),
        ("web.shop.svc:443", "web.shop.svc", 443),
    ],
)
def test_a_name(authority: str, host: str, port: int) -> None:
    asked = parse_authority(authority)
    assert (asked.host, asked.port, asked.address, asked.route) == (host, port, None, None)


@pytest.mark.parametrize(
    ("authority", "address", "port"),
    [
        ("10.1.0.9:22", "10.1.0.9", 22),
        ("[fd00::9]:443", "fd00::9", 443),
        ("[FD00:0::9]:443", "fd00::9", 443),
        ("[::ffff:10.1.0.9]:443", "::ffff:10.1.0.9", 443),
    ],
)
def test_an_address(authority: str, address: str, port: int) -> None:
    asked = parse_authority(authority)
    assert (asked.address, asked.port, asked.route) == (ipaddress.ip_address(address), port, None)


@pytest.mark.parametrize(
    "authority",
    [
        "",
        ":",
        "box-7",
        "box-7:",
        ":22",
        "box-7:0",
        "box-7:65536",
        "box-7:999999",
        "box-7:Ssh",
        "box-7:-1",
        "box-7:٢٢",
        "-box:22",
        "[10.1.0.9]:22",
        "fd00::9:22",
        "[fd00::9].box-7.longline:22",
        "longline:22_x",
        ".longline:22",
        "..longline:22",
        ".box-7.longline:22",
        "box-7.longline:22",
        "a.-box.longline:22",
        "a/b.box-7.longline:22",
        "a b.box-7.longline:22",
        "a\x00.box-7.longline:22",
        "user@box-7:22",
        "http://box-7:22",
        "x" * 300 + ".box-7.longline:22",
        "x" * 300 + ":22",
    ],
)
def test_other_forms_are_told_the_forms(authority: str) -> None:
    with pytest.raises(OpenRefused, match=r"<host>\.<agent>\.longline:<port>") as caught:
        parse_authority(authority)
    assert caught.value.code is Code.UNKNOWN_AGENT


def test_a_service_of_an_agent() -> None:
    assert parse_authority("Box-7:printer").route == Route("box-7", ServiceTarget("printer"))


def test_the_kubelet_has_a_front_end_of_its_own() -> None:
    with pytest.raises(OpenRefused, match="fleet API") as caught:
        parse_authority("box-7:kubelet")
    assert caught.value.code is Code.NOT_ALLOWED
