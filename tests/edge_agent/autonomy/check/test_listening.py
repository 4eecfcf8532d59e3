"""The addresses of the proxy: free, had by the agent, had by somebody else, or not to be had."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from edge_agent.autonomy.check import listening as module
from edge_agent.autonomy.check.listening import listening
from edge_agent.autonomy.serving import CERTIFICATE, serving_context
from tests.support.pki import Authority
from tunnel.aio.process.config import HostPort
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.listener import Listener


async def levels(folder: Path, *addresses: str) -> list[tuple[str, str]]:
    named = [HostPort(address) for address in addresses]
    found = await asyncio.to_thread(lambda: list(listening(named, folder / CERTIFICATE)))
    return [(one.level, one.text) for one in found]


async def nothing(conn: Conn) -> None:
    await conn.read()


async def test_free_and_not_to_be_had(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as there:
        port = there.getsockname()[1]
    free, gone = f"127.0.0.1:{port}", f"192.0.2.1:{port}"
    ((first, _), (second, text)) = await levels(tmp_path, free, gone)
    assert (first, second) == ("good", "warning")
    assert "no interface of this machine has it" in text
    ((first, _),) = await levels(tmp_path, gone)
    assert first == "fault", "kubeconfigs lead there"


async def test_the_agent_and_somebody_else(tmp_path: Path) -> None:
    context: ssl.SSLContext = await asyncio.to_thread(
        serving_context, tmp_path, "proxy", ["127.0.0.1"], Authority().pem, ["http/1.1"]
    )
    agent, stranger = Listener("agent", nothing), Listener("stranger", nothing)
    await agent.listen_tcp("127.0.0.1:0", context)
    await stranger.listen_tcp("127.0.0.1:0")
    ((level, text),) = await levels(tmp_path, f"127.0.0.1:{agent.ports[0]}")
    assert (level, text) == ("good", f"the agent answers at 127.0.0.1:{agent.ports[0]}")
    ((level, text),) = await levels(tmp_path, f"127.0.0.1:{stranger.ports[0]}")
    assert (level, "does not answer as the agent" in text) == ("fault", True)
    await agent.aclose()
    await stranger.aclose()


def test_a_socket_unit_whose_agent_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.2)
    serving_context(tmp_path, "proxy", ["127.0.0.1"], Authority().pem, ["http/1.1"])
    with socket.create_server(("127.0.0.1", 0)) as waiting:
        (found,) = listening([HostPort(f"127.0.0.1:{waiting.getsockname()[1]}")], tmp_path / CERTIFICATE)
    assert (found.level, "timed out" in found.text) == ("fault", True)
    assert "start the agent" in found.remedy
