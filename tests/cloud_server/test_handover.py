"""What a start inherits, and an upgrade from the side of the server that is asked; whole ones are in tests/e2e."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from cloud_server.handover import PID_FILE, Inheritance, Outcome, Upgrades
from cloud_server.upgrade import UpgradeFailed, ask_for_upgrade
from tests.support.waits import eventually
from tunnel.aio.process.lifecycle import Stop
from tunnel.aio.process.pid_file import AlreadyRunning, PidFile
from tunnel.aio.process.succession import ENVIRONMENT

NOTHING = Inheritance(None, [])


def upgrades(state: Path, stop: Stop) -> Upgrades:
    return Upgrades(NOTHING, None, state, stop)


async def outcome(state: Path, number: int) -> Outcome:
    def there() -> Outcome | None:
        found = Outcome.read(state)
        return found if found is not None and found.number == number else None

    for _ in range(1000):
        if found := await asyncio.to_thread(there):
            return found
        await asyncio.sleep(0.01)
    raise AssertionError("no outcome")


async def test_a_start_that_inherits_nothing_is_released_at_once_and_has_the_state_for_itself(tmp_path: Path) -> None:
    inheritance = Inheritance.take({})
    lock = await asyncio.to_thread(inheritance.lock, tmp_path)
    assert lock is not None
    with pytest.raises(AlreadyRunning):
        await asyncio.to_thread(Inheritance.take({}).lock, tmp_path)
    await inheritance.take_over()
    assert not inheritance.sockets.outlive
    os.close(lock.descriptor)


async def test_a_state_folder_that_cannot_be_locked_is_no_reason_not_to_start(tmp_path: Path) -> None:
    assert await asyncio.to_thread(NOTHING.lock, tmp_path / "missing") is None


async def test_the_lock_and_the_sockets_come_from_the_process_before(tmp_path: Path) -> None:
    lock = await asyncio.to_thread(PidFile.take, tmp_path / PID_FILE)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, socket.create_server(("127.0.0.1", 0)) as listening:
        socket.send_fds(ours, [b'["state-lock", "socks"]'], [lock.descriptor, listening.fileno()])
        ours.send(b"[]")
        inheritance = await asyncio.to_thread(Inheritance.take, {ENVIRONMENT: str(theirs.detach())})
        os.close(lock.descriptor)
        inherited = await asyncio.to_thread(inheritance.lock, tmp_path)
        assert inherited is not None
        with pytest.raises(AlreadyRunning):
            await asyncio.to_thread(PidFile.take, tmp_path / PID_FILE)
        assert inheritance.sockets.outlive  # the other one has them still
        ours.send(b"go")
        await inheritance.take_over()
        inheritance.sockets.drop_unclaimed([])
    os.close(inherited.descriptor)


@pytest.mark.parametrize("pid", [1, None])
async def test_what_cannot_be_upgraded_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pid: int | None
) -> None:
    stop = Stop()
    one = upgrades(tmp_path, stop)
    if pid is None:
        stop.ask()
    else:
        monkeypatch.setattr(os, "getpid", lambda: pid)
    one.ask()
    reason = (await outcome(tmp_path, 1)).reason
    assert "stopping" in reason if pid is None else "its container ends" in reason
    assert one.successor is None
    await one.aclose()


async def test_a_successor_that_hangs_is_ended_with_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = tmp_path / "started"
    program = f"import os, time; open({str(started)!r}, 'w').write(str(os.getpid()) + '.'); time.sleep(600)"
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-c", program])
    stop = Stop()
    one = upgrades(tmp_path, stop)
    one.ask()
    text = await eventually(lambda: started.exists() and started.stat().st_size and started.name, 20)
    assert text
    pid = int((await asyncio.to_thread(started.read_text)).partition(".")[0])
    one.ask()
    assert (await outcome(tmp_path, 2)).reason == "an upgrade is under way"
    stop.ask()
    await one.call_off()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert (await asyncio.to_thread(Outcome.read, tmp_path)).reason == "the server is stopping"  # type: ignore[union-attr]
    assert one.successor is None
    await one.aclose()


def test_the_command_without_a_server(tmp_path: Path) -> None:
    with pytest.raises(UpgradeFailed, match="nothing to upgrade, start it"):
        ask_for_upgrade(tmp_path)
    with pytest.raises(UpgradeFailed, match="cannot be asked"):
        ask_for_upgrade(tmp_path / "missing")


def test_a_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = PidFile.take(tmp_path / PID_FILE)
    lock.write()
    Outcome(of=os.getpid(), number=1, successor=7).write(tmp_path)  # of an earlier time
    heard: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: heard.extend((pid, number)))
    monkeypatch.setattr("cloud_server.upgrade.ANSWER_S", 0.2)
    with pytest.raises(UpgradeFailed, match=f"process {os.getpid()} has not said within"):
        ask_for_upgrade(tmp_path)
    assert heard == [os.getpid(), signal.SIGUSR2]
    os.close(lock.descriptor)


def test_an_outcome_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert Outcome.read(tmp_path) is None
    (tmp_path / "upgrade.json").write_text("{")
    assert Outcome.read(tmp_path) is None
