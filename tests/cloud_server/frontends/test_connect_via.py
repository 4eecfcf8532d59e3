"""A proxy URL whose name says in which agent's network the targets are meant."""

from __future__ import annotations

import base64

import pytest

from cloud_server.frontends.connect import proxy_token, proxy_via
from tests.cloud_server.frontends.site import site
from tests.support.doors import asking
from tunnel.aio.http.http1 import Headers, Request
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.target import TcpTarget


def request(name: str, password: str = "T0ken") -> Request:
    credentials = base64.b64encode(f"{name}:{password}".encode()).decode()
    return Request("CONNECT", "127.0.0.1:6443", Headers([("proxy-authorization", f"Basic {credentials}")]))


@pytest.mark.parametrize("name", ["site-a.longline", "Site-A.Longline"])
def test_the_name_chooses_the_agent_and_the_password_is_the_token(name: str) -> None:
    assert proxy_via(request(name)) == "site-a"
    assert proxy_token(request(name)) == "T0ken"


@pytest.mark.parametrize("name", ["", "site-a", "longline", ".longline", "a.b.longline", "-.longline"])
def test_other_names_choose_none(name: str) -> None:
    assert proxy_via(request(name)) == ""


def test_no_name_chooses_none() -> None:
    assert proxy_via(Request("CONNECT", "127.0.0.1:6443", Headers())) == ""
    assert proxy_via(Request("CONNECT", "x:1", Headers([("proxy-authorization", "Bearer site-a.longline")]))) == ""
    assert proxy_via(Request("CONNECT", "x:1", Headers([("proxy-authorization", "Basic ???")]))) == ""


@pytest.mark.parametrize(
    ("asked", "target"),
    [
        ("127.0.0.1:6443", TcpTarget("127.0.0.1", 6443)),
        ("[FD00::1]:443", TcpTarget("fd00::1", 443)),
        ("box-8:80", TcpTarget("box-8", 80)),
        ("DB.internal.:5432", TcpTarget("db.internal", 5432)),
    ],
)
async def test_targets_are_taken_as_they_stand(asked: str, target: TcpTarget) -> None:
    async with site() as far:
        live = await far.doors.door.open(asking(asked=asked, via="box-7"))
        assert live is not None
        live.opened().reset()
        assert [(one.agent, one.target) for one in far.asked] == [("box-7", target)]


@pytest.mark.parametrize("asked", ["", "x", "x:", "x:0", "x:ssh", "a b:1", "x:99999", ":1"])
async def test_what_is_no_target_is_refused(asked: str) -> None:
    async with site() as far:
        with pytest.raises(OpenRefused) as caught:
            await far.doors.door.open(asking(asked=asked, via="box-7"))
        assert caught.value.code is Code.UNKNOWN_AGENT
