"""The cloud daemon put together: opened whole or not at all, and stopped when a part of it fails."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
from structlog.testing import capture_logs

# The daemon imports these two when they are asked for, and reading files in an event loop is an error in tests.
import cloud_server.frontends.fleet.server
import cloud_server.metrics  # noqa: F401
from cloud_server.config import ServerConfig, load_server_config
from cloud_server.daemon import CloudServer, StartFailed
from cloud_server.identity.agents import AgentStore
from cloud_server.setup import init_state
from tests.support.cluster import edit_toml
from tests.support.processes import command_result
from tests.support.waits import eventually
from tunnel.aio.process.lifecycle import EXIT_FAILED, Stop
from tunnel.aio.process.log_sink import Lost
from tunnel.aio.sockets.listener import ListenFailed

ANY_PORT = "127.0.0.1:0"


def prepared(state: Path, changes: Mapping[str, object]) -> ServerConfig:
    """What `cloud-server init` makes, on ports that are free. Blocks."""
    init_state(state, ["127.0.0.1"])
    edit_toml(
        state / "cloud-server.toml",
        {
            "tunnel": {"listen": [ANY_PORT]},
            "connect": {"unix": "c.sock", "listen": ANY_PORT},
            "fleet": {"listen": ANY_PORT},
            **changes,
        },
    )
    return load_server_config(state / "cloud-server.toml")


async def config_of(folder: Path, **changes: object) -> ServerConfig:
    return await asyncio.to_thread(prepared, folder / "cloud", changes)


@contextlib.asynccontextmanager
async def open_server(config: ServerConfig) -> AsyncIterator[tuple[CloudServer, Stop]]:
    server, stop = CloudServer(config, lambda: Lost(0, 0)), Stop()
    try:
        await server.start(stop)
        yield server, stop
    finally:
        await server.aclose()


async def test_everything_that_the_config_names_is_open_and_then_closed(tmp_path: Path) -> None:
    config = await config_of(tmp_path, forward=[{"listen": ANY_PORT, "agent": "box-7", "target": "127.0.0.1:22"}])
    async with open_server(config) as (server, stop):
        listening = {name: ports for name, (*ports,) in server.ports.items()}
        assert listening.keys() >= {"tunnel", "connect", "fleet"}
        for (port,) in listening.values():
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
        assert (tmp_path / "cloud" / "c.sock").is_socket()
        assert not stop.asked
        await server.drain()
    assert not (tmp_path / "cloud" / "c.sock").exists()
    for (port,) in listening.values():
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.parametrize("taken", ["tunnel", "connect", "fleet"])
async def test_a_port_that_is_taken_is_named_and_leaves_nothing_open(tmp_path: Path, taken: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        config = await config_of(tmp_path, **{taken: {"listen": [address] if taken == "tunnel" else address}})
        with pytest.raises((ListenFailed, OSError), match=f"cannot listen on {address}"):
            async with open_server(config):
                pass


async def test_a_state_folder_without_its_authority(tmp_path: Path) -> None:
    config = await config_of(tmp_path)
    (tmp_path / "cloud" / "ca.key").unlink()
    with pytest.raises(StartFailed, match="cloud-server init"):
        async with open_server(config):
            pass


def test_whoever_starts_it_is_told_in_one_line(tmp_path: Path) -> None:
    prepared(tmp_path / "cloud", {})
    (tmp_path / "cloud" / "server.key").write_text("rubbish")
    ended = command_result("cloud-server", "run", "--config", str(tmp_path / "cloud" / "cloud-server.toml"))
    assert ended.returncode == EXIT_FAILED
    (line,) = ended.stderr.splitlines()
    assert "cannot start" in line
    assert "server.key" in line


async def test_a_server_that_no_longer_hears_of_revocations_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_arguments: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(AgentStore, "follow", broken)
    config = await config_of(tmp_path)
    with capture_logs() as logs:
        async with open_server(config) as (_, stop):
            await eventually(lambda: stop.asked)
            assert stop.failed
    assert [log["task"] for log in logs if "part of the daemon" in log["event"]] == ["cloud server: follow agents"]
