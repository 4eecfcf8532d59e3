"""A running front end with one box that is there, with its real built-in kubelet, and one that is away."""

from __future__ import annotations

import os
import pwd
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.hostkubelet.server import HostKubelet
from edge_agent.hostkubelet.settings import HostSettings
from tests.support.fleet import FakeRegistry, Fleet, box, box_node, running_fleet
from tests.support.principals import ANN
from tests.support.records import Records
from tests.support.waits import eventually
from tunnel.aio.sockets.duplex import Duplex

LOG_LINES = 500


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    """A log file that the box offers."""
    path = tmp_path / "app.log"
    path.write_text("".join(f"line {number}\n" for number in range(LOG_LINES)))
    return path


@pytest.fixture
def host_kubelet(log_file: Path) -> HostKubelet:
    """The kubelet of `box-7`; made outside of the event loop, which it would block shortly."""
    me = pwd.getpwuid(os.getuid()).pw_name
    return HostKubelet("box-7", HostSettings(exec=True, user=me, files=[log_file]), Records())


@pytest.fixture
async def fleet(tmp_path: Path, host_kubelet: HostKubelet) -> AsyncIterator[Fleet]:
    """Box `box-7` is connected, `box-8` is away, `box-9` offers no kubelet."""

    await host_kubelet.find_accounts()

    async def serve(duplex: Duplex) -> None:
        await host_kubelet.serve(duplex, ANN)

    registry = FakeRegistry(
        box("box-7", node=box_node(site="north")),
        box("box-8", connected=False, node=box_node(site="south")),
        box("box-9"),
    )
    async with running_fleet(tmp_path, registry, {"box-7": serve}) as running:
        link = running.opener.pairs["box-7"].server
        await eventually(
            lambda: len(running.opener.opened) >= 2 and not link.statistics().streams, what="the kubelets were asked"
        )
        yield running
        await host_kubelet.aclose()
