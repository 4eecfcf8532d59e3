"""Joining: all of it or nothing, whatever the server says, and the token is not used up in vain."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from cloud_server.trust.ca import spki_sha256
from edge_agent.config import load_agent_config
from edge_agent.identity import join as edge_join
from edge_agent.identity.identity import Identity
from edge_agent.identity.join import Joined, JoinFailed, join
from protos import tunnel_pb2
from tests.support.carriers import cloud, echo
from tests.support.enrolling import Office, open_office, public_key_of, unfinished_joins
from tests.support.pki import Authority
from tests.support.waits import eventually
from tunnel.aio.carriers import channel, requests
from tunnel.aio.identity.join_token import JoinToken
from tunnel.aio.identity.peer_identity import Presented
from tunnel.aio.process.config import ServerAddress
from tunnel.aio.sockets.http_proxy import VARIABLES
from tunnel.core.wire.faults import TOO_MANY_CLIENTS


@pytest.fixture(autouse=True)
def without_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path / "cloud") as made:
        yield made


@pytest.fixture
def box(tmp_path: Path) -> Path:
    return tmp_path / "box" / "state"


async def token_of(place: Office, agent: str = "box-7", life: timedelta = timedelta(hours=1)) -> JoinToken:
    return await place.token(agent, life)


async def joined(place: Office, token: JoinToken, box: Path) -> Joined:
    return await join(place.address, token, box, "1.2.3")


async def failure(address: ServerAddress, token: JoinToken, box: Path) -> str:
    with pytest.raises(JoinFailed) as caught:
        await join(address, token, box, "1.2.3")
    return str(caught.value)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_a_box_joins_with_a_key_that_was_made_on_it(place: Office, box: Path) -> None:
    result = await joined(place, await token_of(place), box)
    assert result == Joined("box-7", box / "edge-agent.toml", config_is_new=True)

    def look() -> None:
        identity = Identity(box)
        assert identity.name() == "box-7"
        assert stat.S_IMODE(identity.key_path.stat().st_mode) == 0o600
        assert stat.S_IMODE(box.stat().st_mode) == 0o700
        assert identity.ca_path.read_bytes() == place.authority.pem
        record = place.agents.get("box-7")
        assert record is not None
        assert record.spki_sha256 == spki_sha256(public_key_of(identity)).hex()
        config = load_agent_config(result.config)
        assert config.cloud.servers == [place.address]
        assert (config.allow, config.host.offered, config.state) == ([], False, box)

    await asyncio.to_thread(look)


async def test_every_example_in_its_configuration_can_be_used(place: Office, box: Path) -> None:
    config = (await joined(place, await token_of(place), box)).config

    def look() -> None:
        lines = config.read_text().splitlines()
        examples = [line.removeprefix("# ") for line in lines if line.startswith(("# [", "# ")) and is_toml(line[2:])]
        config.write_text("\n".join([*(line for line in lines if not line.startswith("#")), *examples]))
        loaded = load_agent_config(config)
        assert [allow.target for allow in loaded.allow] == ["127.0.0.1:22"]
        assert loaded.host.exec
        assert loaded.host.units == ["nginx.service"]

    await asyncio.to_thread(look)


def is_toml(line: str) -> bool:
    return line.startswith("[") or line.split(" ")[1:2] == ["="]


async def test_a_second_join_replaces_the_identity_and_keeps_the_configuration(place: Office, box: Path) -> None:
    config = (await joined(place, await token_of(place), box)).config
    before = await asyncio.to_thread(contents, box)
    await asyncio.to_thread(config.write_text, "# mine\n")
    result = await joined(place, await token_of(place, "box-8"), box)
    assert (result.agent, result.config_is_new) == ("box-8", False)
    after = await asyncio.to_thread(contents, box)
    assert after["edge-agent.toml"] == b"# mine\n"
    assert after["agent.key"] != before["agent.key"]
    assert x509.load_pem_x509_certificate(after["agent.crt"]) != x509.load_pem_x509_certificate(before["agent.crt"])
    await asyncio.to_thread(Identity(box).tls.load)


@pytest.mark.parametrize("renames", range(6))
async def test_a_crash_amid_a_second_join_leaves_one_identity_or_the_other(
    place: Office, box: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    await joined(place, await token_of(place), box)
    token, identity, done, real = await token_of(place, "box-8"), Identity(box), 0, Path.replace

    def replace(path: Path, target: Path) -> Path:
        nonlocal done
        if done >= renames:
            raise OSError("the power is gone")
        done += 1
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(JoinFailed):
            await joined(place, token, box)
    assert await asyncio.to_thread(identity.name) == ("box-7" if renames < 5 else "box-8")
    await asyncio.to_thread(identity.settle)
    await asyncio.to_thread(identity.tls.load)


async def test_a_join_that_fails_leaves_things_as_they_were(place: Office, box: Path) -> None:
    token = await token_of(place)
    await joined(place, token, box)
    before = await asyncio.to_thread(contents, box)
    assert "was used already" in await failure(place.address, token, box)
    assert await asyncio.to_thread(contents, box) == before
    assert "was used already" in await failure(place.address, token, box.parent / "other")
    assert not await asyncio.to_thread((box.parent / "other").exists)


async def test_a_box_that_is_told_to_ask_again_does(place: Office, box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.server is not None
    monkeypatch.setattr(requests, "ASK_AGAIN_S", 0.05)
    monkeypatch.setattr(edge_join, "LEAST_PAUSE_S", 0.05)
    server, token = place.server, await token_of(place)
    async with unfinished_joins(place.address, token, 2) as others:
        await eventually(lambda: server.requests.running == 2)
        async with asyncio.TaskGroup() as tasks:
            joining = tasks.create_task(joined(place, token, box))
            await eventually(lambda: server.refused.get(TOO_MANY_CLIENTS.code, 0) >= 2)
            for other in others:
                other.cancel()
    assert joining.result().agent == "box-7"


async def test_a_box_asks_again_for_a_while(place: Office, box: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.server is not None
    server, token = place.server, await token_of(place)
    monkeypatch.setattr(edge_join, "ASK_FOR_S", 1.0)
    async with unfinished_joins(place.address, token, 2):
        await eventually(lambda: server.requests.running == 2)
        assert "too many requests at once" in await failure(place.address, token, box)
    assert server.refused == {TOO_MANY_CLIENTS.code: 1}


async def test_a_server_that_says_at_once_is_not_asked_without_a_pause(
    place: Office, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert place.server is not None
    monkeypatch.setattr(requests, "ASK_AGAIN_S", 0.001)
    monkeypatch.setattr(edge_join, "ASK_FOR_S", 1.0)
    monkeypatch.setattr(edge_join, "LEAST_PAUSE_S", 0.4)
    server, token = place.server, await token_of(place)
    async with unfinished_joins(place.address, token, 2):
        await eventually(lambda: server.requests.running == 2)
        assert "too many requests at once" in await failure(place.address, token, box)
    assert 1 <= server.refused[TOO_MANY_CLIENTS.code] <= 3


async def test_whether_a_token_has_expired_is_the_servers_word(place: Office, box: Path) -> None:
    token = await token_of(place, life=timedelta(seconds=-1))
    text = await failure(place.address, token, box)
    assert "refused: the join token expired at 20" in text
    assert "this machine's clock" not in text, "it is that of the server"
    away = await failure(ServerAddress("127.0.0.1:1"), token, box)
    assert "connection refused" in away
    assert "by this box's clock the join token expired at 20" in away


async def test_a_clock_that_is_wrong_is_told_with_the_join(
    place: Office, box: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = timedelta(days=6)
    monkeypatch.setattr(channel, "clock_ahead", lambda headers: ahead)
    result = await joined(place, await token_of(place), box)
    assert result.clock_fault is not None
    assert result.clock_fault.startswith("this machine's clock is 6 days ahead of the server's")
    ahead = timedelta(days=-400)
    late = await failure(place.address, await token_of(place, life=timedelta(seconds=-1)), box)
    assert "this machine's clock is 400 days behind the server's" in late


async def test_a_folder_that_cannot_be_written_does_not_use_the_token_up(place: Office, box: Path) -> None:
    token = await token_of(place)
    await asyncio.to_thread(box.parent.touch)
    assert "cannot be written" in await failure(place.address, token, box)
    await asyncio.to_thread(os.unlink, box.parent)
    assert (await joined(place, token, box)).agent == "box-7"


async def test_a_server_of_another_cloud(place: Office, box: Path, tmp_path: Path) -> None:
    async with open_office(tmp_path / "other") as other:
        assert "certificate" in await failure(other.address, await token_of(place), box)
    assert not await asyncio.to_thread(box.exists)


async def test_a_server_that_is_not_there(place: Office, box: Path) -> None:
    token = await token_of(place)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    text = await failure(ServerAddress(f"127.0.0.1:{port}"), token, box)
    assert f"127.0.0.1:{port}: connection refused" in text
    assert "nothing.invalid" in await failure(ServerAddress("nothing.invalid:1"), token, box)


class Liar:
    """Gives every box a certificate of somebody else."""

    def boxes_left(self, _uri: str) -> int:
        return 1

    async def join(self, peer: Presented, request: tunnel_pb2.JoinRequest) -> tunnel_pb2.JoinResponse:
        issued = Authority().issue(uris=["spiffe://longline/agent/box-7"])
        pem = x509.load_pem_x509_certificate(issued.certificate_pem)
        return tunnel_pb2.JoinResponse(chain_der=[pem.tbs_certificate_bytes], ca_pem=b"", agent_name="box-7")

    async def renew(self, peer: Presented, request: tunnel_pb2.RenewRequest) -> tunnel_pb2.RenewResponse:
        raise NotImplementedError

    recover = renew


async def test_an_answer_of_no_use_leaves_nothing_behind(place: Office, box: Path) -> None:
    async with cloud(echo, enrollment=Liar()) as liar:
        bootstrap = liar.authority.issue(uris=["spiffe://longline/join/0123"])
        token = JoinToken(
            agent="box-7",
            expires=(await token_of(place)).expires,
            ca_pem=liar.authority.pem,
            certificate_pem=bootstrap.certificate_pem,
            key_pem=bootstrap.key_pem,
        )
        text = await failure(ServerAddress(liar.address), token, box)
    assert "the server sent a certificate that cannot be read" in text
    assert not await asyncio.to_thread(box.exists)
