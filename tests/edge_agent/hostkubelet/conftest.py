"""A kubelet that serves in-memory connections, and nothing left of it afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest

from edge_agent.hostkubelet.port_forward import Dial
from edge_agent.hostkubelet.server import HostKubelet
from edge_agent.hostkubelet.settings import HostSettings
from edge_agent.hostkubelet.spawn import unblock_signals_of_commands
from tests.support.channel_client import ChannelClient, exec_target
from tests.support.duplex_pair import MemoryDuplex, duplex_pair
from tests.support.principals import ANN
from tests.support.records import Records
from tests.support.waits import eventually
from tunnel.aio.http.http1 import ClientConnection, Headers
from tunnel.aio.process.parts import PartFailed
from tunnel.core.wire.principal import Principal

POD = "box-7"
TRACE_ID = "5b1ce0ffee0ddba1"


class Box:
    """A kubelet under test with its connections."""

    def __init__(self, kubelet: HostKubelet, tasks: asyncio.TaskGroup, records: Records) -> None:
        self.kubelet = kubelet
        self.records = records
        self._tasks = tasks
        self._clients: list[MemoryDuplex] = []

    def connect(self, capacity_bytes: int = 256 * 1024, principal: Principal = ANN) -> MemoryDuplex:
        """The client's end of a new connection of somebody's."""
        client, server = duplex_pair(capacity_bytes)
        self._clients.append(client)
        self.serving = self._tasks.create_task(self.kubelet.serve(server, principal, TRACE_ID))
        return client

    async def aclose(self) -> None:
        """End all, also what a failed test left open."""
        for client in self._clients:
            client.reset()
        await self.kubelet.aclose()

    async def exec(self, *command: str, stdin: bool = False, tty: bool = False) -> ChannelClient:
        """Start a command."""
        return await ChannelClient.open(self.connect(), exec_target(POD, command, stdin=stdin, tty=tty))

    async def run(self, *command: str) -> tuple[int, bytes, bytes]:
        """Run a command to its end: exit code, stdout, stderr."""
        client = await self.exec(*command)
        code = await client.finish()
        await client.duplex.aclose()
        return code, client.stdout, client.stderr

    async def get(self, target: str) -> tuple[int, Headers, bytes]:
        """A plain request on a connection of its own."""
        duplex = self.connect()
        http = ClientConnection(duplex)
        response = await http.request("GET", target, [("host", "kubelet")])
        body = await http.read_body(1 << 26)
        await duplex.aclose()
        return response.status, response.headers, body


def children() -> list[psutil.Process]:
    """Child processes of this one, zombies included."""
    return psutil.Process().children(recursive=True)


@asynccontextmanager
async def serving(settings: HostSettings, *, dial: Dial | None = None, **programs: Any) -> AsyncIterator[Box]:
    """A kubelet that leaves no child behind."""
    records = Records()
    kubelet = await asyncio.to_thread(HostKubelet, POD, settings, records, dial, **programs)  # looks at files
    if settings.exec:
        with contextlib.suppress(PartFailed):  # its commands say why
            await kubelet.find_accounts()
    async with asyncio.TaskGroup() as tasks:
        box = Box(kubelet, tasks, records)
        try:
            yield box
        finally:
            await box.aclose()
    await eventually(lambda: not children(), what="no child is left")


@pytest.fixture(autouse=True, scope="session")
def _signals_as_in_the_agent() -> None:
    unblock_signals_of_commands()


@pytest.fixture
async def box() -> AsyncIterator[Box]:
    """A box that allows commands as whoever runs the tests."""
    user = psutil.Process(os.getpid()).username()
    async with serving(HostSettings(exec=True, user=user)) as serving_box:
        yield serving_box
