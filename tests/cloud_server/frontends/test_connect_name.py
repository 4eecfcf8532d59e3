from __future__ import annotations

import pytest

from cloud_server.frontends.connect_name import parse_connect_name
from tunnel.core.errors import Code, OpenRefused
from tunnel.core.target import ServiceTarget, TcpTarget


@pytest.mark.parametrize(
    ("authority", "agent", "host", "port"),
    [
        ("box-7:22", "box-7", "localhost", 22),
        ("BOX-7:22", "box-7", "localhost", 22),
        ("7:65535", "7", "localhost", 65535),
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
def test_names(authority: str, agent: str, host: str, port: int) -> None:
    assert parse_connect_name(authority) == (agent, TcpTarget(host, port))


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
        "box_7:22",
        "-box:22",
        "box-7.longline.example:22",
        "10.1.0.9:22",
        "[::1]:22",
        "[fd00::9].box-7.longline:22",
        "example.com:443",
        "longline:22_x",
        ".longline:22",
        "..longline:22",
        ".box-7.longline:22",
        "a.-box.longline:22",
        "a/b.box-7.longline:22",
        "a b.box-7.longline:22",
        "a\x00.box-7.longline:22",
        "user@box-7:22",
        "http://box-7:22",
        "x" * 300 + ".box-7.longline:22",
    ],
)
def test_other_forms_are_told_the_forms(authority: str) -> None:
    with pytest.raises(OpenRefused, match=r"<host>\.<agent>\.longline:<port>") as caught:
        parse_connect_name(authority)
    assert caught.value.code is Code.UNKNOWN_AGENT


def test_a_service_of_an_agent() -> None:
    assert parse_connect_name("Box-7:printer") == ("box-7", ServiceTarget("printer"))


def test_the_kubelet_has_a_front_end_of_its_own() -> None:
    with pytest.raises(OpenRefused, match="fleet API") as caught:
        parse_connect_name("box-7:kubelet")
    assert caught.value.code is Code.NOT_ALLOWED
