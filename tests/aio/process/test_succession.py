"""Handing over between two real processes: this one, and one that this one starts."""

from __future__ import annotations

import asyncio
import os
import socket
import sys

import pytest

from tests.support.waits import scaled_s
from tunnel.aio.process.handed import Handed
from tunnel.aio.process.succession import ENVIRONMENT, Predecessor, Successor, SuccessorFailed

TAKES_OVER = """
import asyncio, os, socket
from tunnel.aio.process.succession import Predecessor
predecessor, handed = Predecessor.from_environment(os.environ)
async def main():
    predecessor.ready()
    word = await predecessor.let_go()
    for one in handed:
        with socket.socket(fileno=one.descriptor) as sock:
            sock.accept()[0].sendall(f"{one.name} {word} {'LONGLINE_SUCCESSION' in os.environ}".encode())
asyncio.run(main())
"""


def runs(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", text])


async def test_it_gets_the_sockets_and_begins_when_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    runs(monkeypatch, TAKES_OVER)
    # More than one message takes.
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(201)]
    last = listening[-1].getsockname()
    try:
        handed = [Handed(f"number {index}", sock.fileno()) for index, sock in enumerate(listening)]
        successor = await asyncio.to_thread(Successor.start, handed[-1:] + handed[:-1])
        await successor.wait_ready(scaled_s(20))
    finally:
        for sock in listening:
            sock.close()
    reader, writer = await asyncio.open_connection(*last)  # nobody accepts, and nobody refuses
    successor.go()
    assert await reader.read() == b"number 200 True False"
    writer.close()
    await asyncio.to_thread(successor.kill)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("raise SystemExit(3)", "ended with exit code 3"), ("import os; os.kill(os.getpid(), 9)", "ended with signal 9")],
)
async def test_one_that_ends_says_how(monkeypatch: pytest.MonkeyPatch, text: str, reason: str) -> None:
    runs(monkeypatch, text)
    successor = await asyncio.to_thread(Successor.start, [])
    with pytest.raises(SuccessorFailed, match=reason):
        await successor.wait_ready(scaled_s(20))
    await asyncio.to_thread(successor.kill)


async def test_one_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    runs(monkeypatch, "import time; time.sleep(600)")
    successor = await asyncio.to_thread(Successor.start, [])
    with pytest.raises(SuccessorFailed, match=r"not ready within 0\.2 s"):
        await successor.wait_ready(0.2)
    pid = successor.pid
    await asyncio.to_thread(successor.kill)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_one_that_ended_after_it_was_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    runs(monkeypatch, TAKES_OVER)
    successor = await asyncio.to_thread(Successor.start, [])
    await successor.wait_ready(scaled_s(20))
    os.kill(successor.pid, 9)
    os.waitid(os.P_PID, successor.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(SuccessorFailed, match="ended since it was ready"):
        successor.go()
    await asyncio.to_thread(successor.kill)


def test_a_program_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(SuccessorFailed, match="/nowhere/python cannot be started: No such file"):
        Successor.start([])


async def test_a_predecessor_that_is_gone_without_a_word() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    environ = {ENVIRONMENT: str(theirs.detach())}
    ours.send(b"[]")
    came = await asyncio.to_thread(Predecessor.from_environment, environ)
    assert came is not None
    assert environ == {}
    predecessor, handed = came
    assert handed == []
    ours.close()
    predecessor.ready()
    assert not await predecessor.let_go()


def test_a_start_that_takes_over_from_nobody() -> None:
    assert Predecessor.from_environment({}) is None
