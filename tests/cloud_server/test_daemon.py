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
import cloud_server.operate.metrics  # noqa: F401
from cloud_server.config import ServerConfig, load_server_config, state_of
from cloud_server.server import CloudServer, StartFailed
from cloud_server.setup import init_state
from cloud_server.trust.sqlite_store import SqliteStore
from tests.support.cluster import edit_toml
from tests.support.processes import command_result
from tests.support.state import opened
from tests.support.waits import eventually
from tunnel.aio.operate.audit import AuditLog
from tunnel.aio.process.lifecycle import Stop
from tunnel.aio.process.outcome import EXIT_FAILED

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
    async with opened(state_of(config)) as store:
        server, stop = CloudServer(config, store, AuditLog("/dev/null"), lambda: 0), Stop()
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


async def test_without_a_port_for_agents_there_is_no_server(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        config = await config_of(tmp_path, tunnel={"listen": [address]})
        with pytest.raises(StartFailed, match=f"cannot listen on {address}"):
            async with open_server(config):
                pass


@pytest.mark.parametrize("taken", ["tunnel", "connect", "fleet", "socks", "metrics", "forward"])
async def test_one_port_that_is_taken_takes_no_other_with_it_and_is_opened_when_it_is_free(
    tmp_path: Path, taken: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        listen: dict[str, object] = {"listen": address}
        if taken == "tunnel":
            listen = {"listen": [ANY_PORT, address]}
        section = [{**listen, "agent": "box-7", "target": "127.0.0.1:22"}] if taken == "forward" else listen
        name = f"{taken} {address}" if taken in ("tunnel", "forward") else taken
        with capture_logs() as logs:
            async with open_server(await config_of(tmp_path, **{taken: section})) as (server, stop):
                assert [(log["part"], log["reason"]) for log in logs if "is down" in log["event"]] == [(name, ANY_TEXT)]
                assert {"tunnel", "connect", "fleet"} - {taken} < {*server.ports, "connect-unix"}
                assert not stop.asked
                other.close()
                await eventually(lambda: [log for log in logs if log["event"] == "a part is up"], 10)
                assert int(address.rpartition(":")[2]) in [port for ports in server.ports.values() for port in ports]


class _AnyText:
    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and bool(other)

    __hash__ = None  # type: ignore[assignment]


ANY_TEXT = _AnyText()


async def test_a_kubeconfig_that_cannot_be_read_yet(tmp_path: Path) -> None:
    config = await config_of(tmp_path, kubernetes={"kubeconfig": "cluster.yaml"})
    with capture_logs() as logs:
        async with open_server(config) as (_, stop):
            (told,) = await eventually(
                lambda: [log for log in logs if log["event"] == "a part is down, trying again"], 10
            )
            assert told["part"] == "kubernetes"
            assert "no such file" in told["reason"].lower()
            assert not stop.asked


async def test_a_server_that_is_closed_while_parts_are_down_leaves_nothing(tmp_path: Path) -> None:
    config = await config_of(tmp_path, connect={"unix": "missing/c.sock"}, fleet={"listen": "192.0.2.1:1"})
    async with open_server(config) as (server, _):
        await server.drain()
        (tmp_path / "cloud" / "missing").mkdir()
    assert not (tmp_path / "cloud" / "missing" / "c.sock").exists()


async def test_a_state_folder_without_its_authority(tmp_path: Path) -> None:
    config = await config_of(tmp_path)
    (tmp_path / "cloud" / "ca.key").unlink()
    with pytest.raises(StartFailed, match="cloud-server init"):
        async with open_server(config):
            pass


def test_whoever_starts_it_is_told_in_one_line(tmp_path: Path) -> None:
    prepared(tmp_path / "cloud", {})
    (tmp_path / "cloud" / "server.crt").write_text("rubbish")
    ended = command_result("cloud-server", "run", "--config", str(tmp_path / "cloud" / "cloud-server.toml"))
    assert ended.returncode == EXIT_FAILED
    (line,) = ended.stderr.splitlines()
    assert "cannot start" in line
    assert "server.crt" in line


async def test_a_server_that_no_longer_hears_of_revocations_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_arguments: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(SqliteStore, "follow", broken)
    config = await config_of(tmp_path)
    with capture_logs() as logs:
        async with open_server(config) as (_, stop):
            await eventually(lambda: stop.asked)
            assert stop.failed
    assert [log["task"] for log in logs if "part of the daemon" in log["event"]] == ["cloud server: follow state"]
