"""What systemd is told while a daemon runs: a line that changes with it, and signs of life."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.support.processes import NotifySocket
from tests.support.waits import eventually, scaled_s
from tunnel.aio.process import supervised
from tunnel.aio.process.sd_notify import notify_reloading
from tunnel.aio.process.supervised import keep_told, watchdog_s


class Daemon:
    """How it is."""

    def __init__(self) -> None:
        self.line = "no link to the cloud"
        self.stuck = ""


@pytest.fixture
def systemd(monkeypatch: pytest.MonkeyPatch) -> Iterator[NotifySocket]:
    socket = NotifySocket()
    monkeypatch.setenv("NOTIFY_SOCKET", socket.path)
    monkeypatch.setattr(supervised, "LOOK_S", 0.02)
    yield socket
    socket.close()


@contextlib.asynccontextmanager
async def told(daemon: Daemon, **environment: str) -> AsyncIterator[None]:
    names = {"NOTIFY_SOCKET": os.environ["NOTIFY_SOCKET"], **environment}
    task = asyncio.get_running_loop().create_task(keep_told(lambda: daemon.line, lambda: daemon.stuck, names))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_the_line_is_told_at_once_and_when_it_changes_and_not_between(systemd: NotifySocket) -> None:
    daemon = Daemon()
    async with told(daemon):
        await eventually(lambda: systemd.states == ["STATUS=no link to the cloud"], scaled_s(5))
        daemon.line = "linked to cloud:7443"
        await eventually(lambda: len(systemd.states) > 1, scaled_s(5))
    assert systemd.states == ["STATUS=no link to the cloud", "STATUS=linked to cloud:7443"]


async def test_signs_of_life_stop_while_links_stand_still_and_come_again(systemd: NotifySocket) -> None:
    daemon = Daemon()
    async with told(daemon, WATCHDOG_USEC="100000", WATCHDOG_PID=str(os.getpid())):
        await eventually(lambda: systemd.states.count("WATCHDOG=1") > 2, scaled_s(5))
        daemon.stuck, daemon.line = "the timer of the session with box-7 is 20 s late", "stands still"
        await eventually(lambda: "STATUS=stands still" in systemd.states, scaled_s(5))
        signs = systemd.states.count("WATCHDOG=1")
        daemon.line = "still does"
        await eventually(lambda: "STATUS=still does" in systemd.states, scaled_s(5))
        assert systemd.states.count("WATCHDOG=1") <= signs + 1  # one may have been on its way
        daemon.stuck = ""
        await eventually(lambda: systemd.states.count("WATCHDOG=1") > signs + 2, scaled_s(5))


async def test_without_a_watchdog_nobody_is_asked_for_signs(systemd: NotifySocket) -> None:
    daemon = Daemon()
    async with told(daemon):
        await eventually(lambda: bool(systemd.states), scaled_s(5))
        daemon.line = "linked"
        await eventually(lambda: "STATUS=linked" in systemd.states, scaled_s(5))
    assert "WATCHDOG=1" not in systemd.states


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "30000000"}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, 0.0),
        ({"WATCHDOG_USEC": "soon"}, 0.0),
    ],
)
def test_the_watchdog_is_that_of_this_process(environment: dict[str, str], seconds: float) -> None:
    assert watchdog_s(environment) == seconds


def test_a_reload_says_when_it_began(systemd: NotifySocket) -> None:
    notify_reloading()
    assert systemd.wait("RELOADING=1", scaled_s(5))
    reloading, since = systemd.states
    assert reloading == "RELOADING=1"
    assert since.startswith("MONOTONIC_USEC=")
