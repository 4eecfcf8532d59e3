"""What a running server does about ends that come near; the rest is in tests/compat and beside the parts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cloud_server import certificates
from cloud_server.agents.agents import AgentView
from cloud_server.certificates import Certificates
from cloud_server.config import ServerConfig, load_server_config
from cloud_server.setup import init_state
from cloud_server.trust.signer import Signer
from tests.support.waits import eventually
from tunnel.aio.identity.validity import Validity

DAY = timedelta(days=1)


@pytest.fixture
async def config(tmp_path: Path) -> ServerConfig:
    return await asyncio.to_thread(lambda: load_server_config(init_state(tmp_path / "s", ["127.0.0.1"]).config))


def agent(name: str, left: timedelta, *, connected: bool = True) -> AgentView:
    end = datetime.now(UTC) + left
    return AgentView(name=name, connected=connected, certificate=Validity(end - 7 * DAY, end))


async def followed(made: Certificates, until: Callable[[], object], signer: Signer | None = None) -> None:
    """Runs the loop until something is so."""
    reloads: list[None] = []

    async def reload() -> None:
        reloads.append(None)

    task = asyncio.get_running_loop().create_task(made.follow(signer, reload))
    try:
        await eventually(lambda: reloads and until())
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_connected_agents_that_did_not_renew_are_named_once_a_day(config: ServerConfig) -> None:
    agents: Sequence[AgentView] = [
        agent("late", DAY),
        agent("fresh", 3 * DAY),
        agent("away", DAY, connected=False),
        AgentView(name="of-another-authority", connected=True),
    ]
    made = Certificates(config, lambda: agents)
    with capture_logs() as logs:
        await followed(made, lambda: logs)
        await followed(made, made.ends)
    assert [(line["event"], line["agents"]) for line in logs] == [("agents will be locked out", ["late"])]
    assert made.ends().keys() == {"server", "ca"}


async def test_a_renewal_that_fails_is_told_and_tried_again(
    config: ServerConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificates, "LOOK_S", 0.01)
    monkeypatch.setattr(certificates, "TELL_S", 0.01)
    assert config.state is not None
    hosts = config.state / "hosts"
    await asyncio.to_thread(hosts.write_text, "b\u00fcro\n")
    signer = Signer(config.state, "longline")
    made = Certificates(config, list)
    try:
        with capture_logs() as logs:
            await followed(made, lambda: sum(line["event"] == "not renewed, trying again" for line in logs) > 1, signer)
            await asyncio.to_thread(hosts.write_text, "new.example.com\n")
            await followed(made, lambda: logs[-1]["event"] == "renewed", signer)
    finally:
        await signer.aclose()
    assert logs[-1]["files"] == [str(config.state / "server.crt")]
