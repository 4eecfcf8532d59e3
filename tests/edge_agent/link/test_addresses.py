"""The address that a name had is dialled while the name does not resolve, and checked for the name all the same."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from edge_agent.link import addresses
from edge_agent.link.addresses import Addresses
from tests.edge_agent.link.test_links import agent
from tests.support.carriers import DIRECT
from tests.support.session_server import session_server
from tests.support.waits import eventually
from tunnel.aio.carriers.carrier import DialOptions

pytestmark = pytest.mark.may_block("the test itself reads and writes the file")
Lookup = Any
UNASKED = f"{'wrong' * 13}.test"
"""A name with a label of more than 63 characters, for which gRPC, which looks names up by itself, asks no server: how
long one takes to say no is no matter of these tests.
"""


class Dns:
    """The system's resolver for names of these tests."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: dict[str, str] = {}
        self._real: Lookup = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._ask)

    def _ask(self, host: str, port: object, *rest: object, **more: object) -> Lookup:
        if not host.endswith(".test"):
            return self._real(host, port, *rest, **more)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return self._real(self.names[host], port, *rest, **more)


@pytest.fixture
def dns(monkeypatch: pytest.MonkeyPatch) -> Dns:
    return Dns(monkeypatch)


async def kept(folder: Path, dns: Dns) -> list[str]:
    """What is kept of a name after a dial by it came up."""
    dns.names["cloud.test"] = "127.0.0.1"
    known = Addresses(folder, lambda _fault: None)
    known.reached("cloud.test:7443", DIRECT)
    file = folder / "addresses.json"
    await eventually(file.exists)
    await known.aclose()
    return list(json.loads(file.read_text())["cloud.test"])


async def test_it_is_kept_over_a_restart_and_used_only_while_the_name_does_not_resolve(
    tmp_path: Path, dns: Dns
) -> None:
    assert await kept(tmp_path, dns) == ["127.0.0.1"]
    told: list[str] = []
    again = Addresses(tmp_path, told.append)
    assert await again.in_place_of_dns("cloud.test:7443", DIRECT) == []
    assert told == [""]
    dns.names.clear()
    assert await again.in_place_of_dns("cloud.test:7443", DIRECT) == ["127.0.0.1"]
    assert told[-1] == (
        "cloud.test does not resolve on this box: temporary failure in name resolution; dialled by the address that it "
        "had: 127.0.0.1"
    )
    assert await again.in_place_of_dns("other.test:7443", DIRECT) == []
    await again.aclose()


async def test_the_end_of_the_trouble_is_told(tmp_path: Path, dns: Dns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "FIRST_LOOK_S", 0.01)
    told: list[str] = []
    known = Addresses(tmp_path, told.append)
    await known.in_place_of_dns("cloud.test:7443", DIRECT)
    dns.names["cloud.test"] = "127.0.0.1"
    await eventually(lambda: told[-1] == "")
    await known.aclose()


@pytest.mark.parametrize(
    ("server", "proxy"),
    [("192.0.2.1:1", "none"), ("[::1]:1", "none"), ("nonsense", "none"), ("a.test:1", "http://p:1")],
)
async def test_addresses_and_what_a_proxy_resolves_need_no_look_up(tmp_path: Path, server: str, proxy: str) -> None:
    known = Addresses(tmp_path, lambda _fault: pytest.fail("nothing was to be looked up"))
    known.reached(server, DialOptions(proxy=proxy))
    assert await known.in_place_of_dns(server, DialOptions(proxy=proxy)) == []
    await known.aclose()


@pytest.mark.parametrize("text", ["", "[]", "7", '{"a.test": 7}', '{"a.test": ["x; rm -rf"]}', "\xff"])
async def test_a_file_of_no_use_is_none(tmp_path: Path, dns: Dns, text: str) -> None:
    (tmp_path / "addresses.json").write_text(text, encoding="latin-1")
    known = Addresses(tmp_path, lambda _fault: None)
    assert await known.in_place_of_dns("a.test:1", DIRECT) == []
    await known.aclose()


async def test_what_listens_there_must_have_a_certificate_for_the_name(tmp_path: Path, dns: Dns) -> None:
    async with session_server(tmp_path / "cloud") as server:
        (tmp_path / "addresses.json").write_text(json.dumps({UNASKED: ["127.0.0.1"]}))
        told: list[str] = []
        known = Addresses(tmp_path, told.append)
        port = server.address.rpartition(":")[2]
        async with agent([f"{UNASKED}:{port}"], server.cloud, known=known) as box:
            await eventually(lambda: told and box.pauses, within_s=20)
            assert "127.0.0.1" in told[0]
            assert not box.ups


async def test_what_could_not_be_written_is_written_at_the_next_link(tmp_path: Path, dns: Dns) -> None:
    dns.names["cloud.test"] = "127.0.0.1"
    folder = tmp_path / "state"
    known = Addresses(folder, lambda _fault: None)
    known.reached("cloud.test:7443", DIRECT)
    await eventually(lambda: known._keeping is not None and known._keeping.done())
    folder.mkdir()
    known.reached("cloud.test:7443", DIRECT)
    await eventually((folder / "addresses.json").exists)
    await known.aclose()
