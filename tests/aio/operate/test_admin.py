"""The admin socket and its client, over real sockets: who may call, what is answered, what is bounded."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.waits import eventually
from tunnel.aio.operate import admin
from tunnel.aio.operate.admin import MAX_BODY_BYTES, PREFIX, AdminCall, AdminError, AdminServer, Feed, Routes
from tunnel.aio.operate.admin_client import AdminRefused, AdminUnreachable, unix_client
from tunnel.aio.sockets.listener import ListenFailed


class Daemon:
    """What the routes of these tests are about."""

    def __init__(self) -> None:
        self.calls: list[AdminCall] = []
        self.feeds_closed = 0
        self.more = asyncio.Event()

    async def status(self, call: AdminCall) -> object:
        self.calls.append(call)
        return {"verdict": "good", "values": dict(call.values), "query": dict(call.query), "body": call.body}

    async def nothing(self, call: AdminCall) -> object:
        return None

    async def refused(self, call: AdminCall) -> object:
        raise AdminError(404, "no agent is called box-8", code="LL1203", remedy="did you mean box-7?")

    async def broken(self, call: AdminCall) -> object:
        raise RuntimeError("a secret")

    async def slow(self, call: AdminCall) -> object:
        await asyncio.get_running_loop().create_future()
        return None

    async def counted(self, call: AdminCall) -> object:
        return self._count(int(call.query.get("to", "3")), call.flag("follow"))

    async def _count(self, to: int, follow: bool) -> Feed:
        try:
            for number in range(to):
                yield {"seq": number, "pad": "x" * int(1e5) if to > 100 else ""}
            if follow:
                await self.more.wait()
        finally:
            self.feeds_closed += 1


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Daemon]:
    daemon = Daemon()
    routes = Routes()
    routes.add("GET", "status", daemon.status)
    routes.add("PUT", "agents/{name}/frame-log", daemon.status)
    routes.add("POST", "reload", daemon.nothing)
    routes.add("GET", "agents/{name}", daemon.refused)
    routes.add("GET", "broken", daemon.broken)
    routes.add("GET", "slow", daemon.slow)
    routes.add("GET", "events", daemon.counted)
    server = AdminServer(routes, path)
    await server.open()
    try:
        yield daemon
    finally:
        await server.aclose()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "admin.sock"


async def call(path: Path, method: str, what: str, body: object = None) -> Any:
    return await asyncio.to_thread(unix_client(path).call, method, what, body)


async def test_a_call_reaches_its_route_with_who_asks(path: Path) -> None:
    async with serving(path) as daemon:
        answer = await call(path, "PUT", "agents/box%2D7/frame-log?dry=1", {"enabled": True})
        assert answer["values"] == {"name": "box-7"}
        assert answer["query"] == {"dry": "1"}
        assert answer["body"] == {"enabled": True}
        assert await call(path, "POST", "reload") is None
    assert str(daemon.calls[0].principal) == f"local_process:uid:{os.geteuid()}"
    assert daemon.calls[0].principal.proof == f"uid:{os.geteuid()} pid:{os.getpid()}"


async def test_the_socket_is_for_its_owner_and_goes_with_the_daemon(path: Path) -> None:
    async with serving(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
async def test_the_kernel_says_who_calls_and_others_are_refused() -> None:
    script = (
        "import os, socket, sys; os.setuid(65534); sock = socket.socket(socket.AF_UNIX); sock.connect(sys.argv[1]);"
        f"sock.sendall(b'GET {PREFIX}status HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); print(sock.makefile().read())"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "admin.sock")
        async with serving(path) as daemon:
            for place in (path, path.parent):  # as an operator who wanted to make it easy
                place.chmod(0o777)
            with capture_logs() as logs:
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-c", script, str(path), stdout=subprocess.PIPE
                )
                said, _ = await process.communicate()
    assert said.startswith(b"HTTP/1.1 403")
    assert b"uid 65534 may not command this daemon" in said
    assert daemon.calls == []
    assert [line["uid"] for line in logs if line["log_level"] == "warning"] == [65534]


async def test_the_socket_of_a_dead_daemon_is_replaced_and_that_of_a_live_one_is_not(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(path):
        second = AdminServer(Routes(), path)
        with pytest.raises(ListenFailed, match=r"cannot listen on .*admin\.sock: another process listens there"):
            await second.open()
        await second.aclose()
        assert await call(path, "POST", "reload") is None


@pytest.mark.parametrize(
    ("method", "what", "status", "says"),
    [
        ("GET", "agents/box-8", 404, "no agent is called box-8: did you mean box-7?"),
        ("GET", "nothing", 404, "of another version"),
        ("GET", "status/", 404, "of another version"),
        ("DELETE", "status", 405, "DELETE is not served for this path, only GET"),
        ("GET", "events?follow=perhaps", 400, "neither 1 nor 0"),
        ("GET", "broken", 500, "a fault of the daemon, whose log says more"),
    ],
)
async def test_errors_come_with_their_reason(path: Path, method: str, what: str, status: int, says: str) -> None:
    async with serving(path):
        with capture_logs(), pytest.raises(AdminRefused) as refused:
            await call(path, method, what)
    assert refused.value.status == status
    assert says in str(refused.value)
    assert refused.value.code == ("LL1203" if what == "agents/box-8" else "")


async def test_a_body_is_bounded_and_must_be_json(path: Path) -> None:
    async with serving(path) as daemon:
        with pytest.raises(AdminRefused) as refused:
            await call(path, "PUT", "agents/a/frame-log", "x" * MAX_BODY_BYTES)
        assert refused.value.status == 413
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(f"POST {PREFIX}reload HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n{{".encode())
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
        writer.close()
        await writer.wait_closed()
    assert daemon.calls == []


async def test_an_answer_that_does_not_come_is_told(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "ANSWER_S", 0.05)
    async with serving(path):
        with pytest.raises(AdminRefused, match="no answer within") as refused:
            await call(path, "GET", "slow")
    assert refused.value.status == 504


async def test_a_stream_comes_line_by_line_and_ends_when_its_reader_is_gone(path: Path) -> None:
    async with serving(path) as daemon:
        feed = unix_client(path).follow("events?to=2&follow=1")
        assert [(await asyncio.to_thread(next, feed))["seq"] for _ in range(2)] == [0, 1]
        assert daemon.feeds_closed == 0
        await asyncio.to_thread(feed.close)
        await eventually(lambda: daemon.feeds_closed == 1)
        whole = await asyncio.to_thread(lambda: [line["seq"] for line in unix_client(path).follow("events")])
        assert whole == [0, 1, 2]


async def test_who_does_not_read_a_stream_is_cut_off(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "UNREAD_S", 0.1)
    async with serving(path) as daemon:
        feed = unix_client(path).follow("events?to=1000")
        await asyncio.to_thread(next, feed)
        await eventually(lambda: daemon.feeds_closed == 1)
        with pytest.raises(AdminUnreachable, match="broke off"):
            await asyncio.to_thread(list, feed)


async def test_the_end_of_the_daemon_ends_a_stream(path: Path) -> None:
    async with serving(path):
        feed = unix_client(path).follow("events?to=1&follow=1")
        await asyncio.to_thread(next, feed)
    with pytest.raises(AdminUnreachable, match="broke off"):
        await asyncio.to_thread(next, feed)


def test_a_route_is_added_once() -> None:
    routes = Routes()

    async def handler(_call: AdminCall) -> object:
        return None

    routes.add("GET", "status", handler)
    with pytest.raises(ValueError, match="there already"):
        routes.add("GET", "status", handler)
    assert routes.paths() == [("GET", "status")]


async def test_what_is_no_request_is_an_error_with_a_code(path: Path) -> None:
    async with serving(path):
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"code":"LL6025"' in answer
