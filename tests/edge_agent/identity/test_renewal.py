"""Renewal before the certificate runs out, from whichever server answers, and never in a hot loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from cloud_server.trust import ca
from edge_agent.identity import certificates, renewal
from edge_agent.identity.identity import Identity
from edge_agent.identity.join import join
from edge_agent.identity.renewal import Renewals
from tests.support.carriers import DIRECT
from tests.support.enrolling import Office, open_office, public_key_of
from tests.support.waits import eventually
from tunnel.aio.sockets.http_proxy import VARIABLES
from tunnel.core.path.rate import TokenBuckets
from tunnel.core.wire.faults import BOX_CERTIFICATE_TIME

MINUTE = timedelta(minutes=1)
"""A life of which more than two thirds are over at once, since it begins five minutes early."""


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Office]:
    async with open_office(tmp_path / "cloud") as made:
        yield made


async def box_of(place: Office, folder: Path, life: timedelta, monkeypatch: pytest.MonkeyPatch) -> Identity:
    """A box that joined some time ago: its certificate has this life."""
    with monkeypatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        await join(place.address, await place.token(), folder, "1")
        patch.setattr(ca, "AGENT_LIFE", life)
        await asyncio.to_thread(grow_old, place, Identity(folder))
    return Identity(folder)


def grow_old(place: Office, identity: Identity) -> None:
    """Another certificate for the key of a box."""
    certificate = place.authority.issue_agent("box-7", public_key_of(identity))
    identity.certificate_path.write_bytes(certificate)


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the code under test wanted to pause."""
    asked: list[float] = []
    real = renewal.pause

    async def pause(delay_s: float, unless: asyncio.Event | None = None) -> None:
        asked.append(delay_s)
        await real(delay_s, unless)

    monkeypatch.setattr(renewal, "pause", pause)
    return asked


@asynccontextmanager
async def kept_fresh(identity: Identity, servers: list[str]) -> AsyncIterator[list[bytes]]:
    """Runs the loop; yields the certificates that it put into the folder."""
    told: list[bytes] = []
    task = asyncio.get_running_loop().create_task(Renewals(identity, lambda: (servers, DIRECT)).run())
    replaced = certificates.replace

    def noted(identity: Identity, answer: certificates.Answer) -> None:
        replaced(identity, answer)
        told.append(answer.certificate_pem)

    certificates.replace = noted  # type: ignore[assignment]
    try:
        yield told
    finally:
        certificates.replace = replaced
        task.cancel()
        await asyncio.wait([task])


async def test_a_certificate_that_is_due_is_replaced_under_the_same_key(
    place: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleeps: list[float]
) -> None:
    identity = await box_of(place, tmp_path / "box", MINUTE, monkeypatch)
    before = await asyncio.to_thread(identity.certificate)
    key = await asyncio.to_thread(identity.key_path.read_bytes)
    async with kept_fresh(identity, [place.address]) as told:
        await eventually(lambda: told)
        await eventually(lambda: sleeps)
    after = await asyncio.to_thread(identity.certificate)
    assert after.validity.not_after - before.validity.not_after > timedelta(days=6)
    assert await asyncio.to_thread(identity.key_path.read_bytes) == key
    assert await asyncio.to_thread(identity.name) == "box-7"
    assert sleeps == [renewal.AT_MOST_EVERY_S]


async def test_one_that_is_not_due_is_left_alone(
    place: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleeps: list[float]
) -> None:
    identity = await box_of(place, tmp_path / "box", timedelta(days=7), monkeypatch)
    async with kept_fresh(identity, [place.address]) as told:
        await eventually(lambda: sleeps)
    assert told == []
    assert renewal.LOOK_EVERY_S * 0.9 <= sleeps[0] <= renewal.LOOK_EVERY_S


async def test_the_next_server_is_asked_when_one_is_away(
    place: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "RETRY_S", 0.01)
    identity = await box_of(place, tmp_path / "box", MINUTE, monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        away = f"127.0.0.1:{taken.getsockname()[1]}"
    with capture_logs() as logs:
        async with kept_fresh(identity, [away, place.address]) as told:
            await eventually(lambda: told)
    (warning,) = [log for log in logs if log["log_level"] == "warning"]
    assert "connection refused" in warning["reason"]


async def test_a_dial_that_is_turned_away_ends_the_wait_for_a_server_that_was_away(
    place: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleeps: list[float]
) -> None:
    identity = await box_of(place, tmp_path / "box", MINUTE, monkeypatch)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        away = f"127.0.0.1:{taken.getsockname()[1]}"
    renewals = Renewals(identity, lambda: ([place.address] if sleeps else [away], DIRECT))
    renewals.turned_away(BOX_CERTIFICATE_TIME)  # some time ago
    task = asyncio.get_running_loop().create_task(renewals.run())
    try:
        await eventually(lambda: sleeps)
        assert sleeps[0] >= renewal.RETRY_S / 2
        renewals.turned_away(BOX_CERTIFICATE_TIME)
        await eventually(lambda: sleeps[1:] == [renewal.AT_MOST_EVERY_S])
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_a_refusal_and_missing_files_are_told_and_tried_again(
    place: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(renewal, "RETRY_S", 0.01)
    identity = await box_of(place, tmp_path / "box", MINUTE, monkeypatch)
    await place.agents.revoke("box-7")
    with capture_logs() as logs:
        async with kept_fresh(identity, [place.address]) as told:
            await eventually(lambda: [log for log in logs if "was revoked" in log.get("reason", "")])
            await asyncio.to_thread(identity.certificate_path.unlink)
            await eventually(lambda: [log for log in logs if "edge-agent join" in log.get("reason", "")])
            assert told == []
            # A join while the agent runs puts all in order.
            joined = await box_of(place, tmp_path / "again", MINUTE, monkeypatch)
            for path in (joined.key_path, joined.ca_path, joined.certificate_path):
                await asyncio.to_thread(path.rename, tmp_path / "box" / path.name)
            await eventually(lambda: told)


@pytest.mark.parametrize(
    ("advised_s", "at_least_s", "at_most_s"), [(0.0, 30.0, 90.0), (200.0, 200.0, 300.0), (1e5, 3600.0, 5400.0)]
)
async def test_a_server_may_say_when_to_ask_again(
    place: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sleeps: list[float],
    advised_s: float, at_least_s: float, at_most_s: float,
) -> None:  # fmt: skip
    identity = await box_of(place, tmp_path / "box", MINUTE, monkeypatch)
    monkeypatch.setattr(TokenBuckets, "take", lambda *_: advised_s or 0.001)
    with capture_logs() as logs:
        async with kept_fresh(identity, [place.address]) as told:
            await eventually(lambda: sleeps)
    assert told == []
    assert at_least_s <= sleeps[0] <= at_most_s
    assert [log["cause"] for log in logs if log["event"] == "certificate not renewed, trying again"] == ["LL2029"]
