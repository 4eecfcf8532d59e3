"""The edge daemon put together: it starts with nobody to talk to, and stops when a part of it fails."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from edge_agent import daemon
from edge_agent.config import AgentConfig, load_agent_config
from tests.support.pki import Authority
from tests.support.waits import eventually
from tunnel.aio.process.lifecycle import Stop
from tunnel.aio.process.outcome import EXIT_FAILED, EXIT_OK

AUTHORITY = Authority()
CARD = AUTHORITY.issue(uris=["spiffe://longline/agent/box-7"])

STARTS = pytest.mark.may_block("it reads its own files before anybody waits for it")


def prepared(folder: Path, more: str = "") -> AgentConfig:
    """A box that joined a cloud that is away. Blocks."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    CARD.write(folder, "agent")
    (folder / "ca.crt").write_bytes(AUTHORITY.pem)
    path = folder / "edge-agent.toml"
    path.write_text(f'[cloud]\nservers = ["127.0.0.1:{port}"]\nproxy = "none"\n{more}')
    return load_agent_config(path)


@STARTS
async def test_a_cloud_that_is_away_is_no_reason_to_end_and_none_to_be_slow_at_the_end(tmp_path: Path) -> None:
    config, stop = await asyncio.to_thread(prepared, tmp_path), Stop()
    with capture_logs() as logs:
        running = asyncio.get_running_loop().create_task(daemon._main(tmp_path / "edge-agent.toml", config, [], stop))
        await eventually(lambda: [log for log in logs if log["event"].startswith("cannot connect")])
        assert not running.done()
        stop.ask()
        async with asyncio.timeout(2):
            assert await running == EXIT_OK
    assert not stop.failed


@STARTS
async def test_a_box_that_has_not_joined_is_told_what_to_do(tmp_path: Path) -> None:
    config = await asyncio.to_thread(prepared, tmp_path)
    (tmp_path / "agent.crt").unlink()
    with capture_logs() as logs:
        assert await daemon._main(tmp_path / "edge-agent.toml", config, [], Stop()) == EXIT_FAILED
    (told,) = logs
    assert told["event"] == "cannot start"
    assert "run edge-agent join first" in told["reason"]


@STARTS
async def test_a_port_that_is_taken_keeps_it_from_nothing_and_not_from_its_end(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, capture_logs() as logs:
        listen = f'[[listen]]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\ntarget = "127.0.0.1:22"\n'
        config, stop = await asyncio.to_thread(prepared, tmp_path, listen), Stop()
        running = asyncio.get_running_loop().create_task(daemon._main(tmp_path / "edge-agent.toml", config, [], stop))
        await eventually(lambda: [log for log in logs if log["event"].startswith("cannot connect")])
        (down,) = [log for log in logs if log["event"].startswith("a part is down")]
        assert down["part"].startswith("listen 127.0.0.1:")
        stop.ask()
        assert await running == EXIT_OK


@STARTS
@pytest.mark.parametrize("part", ["edge_agent.identity.renewal.Renewals.run", "edge_agent.link.links.Links.run"])
async def test_an_agent_that_would_no_longer_dial_or_renew_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    async def broken(*_arguments: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(part, broken)
    config, stop = await asyncio.to_thread(prepared, tmp_path), Stop()
    await daemon._main(tmp_path / "edge-agent.toml", config, [], stop)
    assert stop.failed
