"""Everything that a box offers, with some of it on a file system that is gone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.hostkubelet import account, log_file, running, spawn
from edge_agent.hostkubelet.account import AccountLookup
from edge_agent.hostkubelet.settings import HostSettings
from tests.edge_agent.hostkubelet.conftest import POD, serving
from tests.edge_agent.hostkubelet.test_server import ME
from tunnel.aio.process.blocking import BlockingCalls

pytestmark = pytest.mark.may_block("the test itself writes files")


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Whatever has `gone` in its path hangs until the test is over, and patience is short."""
    over = threading.Event()
    is_dir, resolve, popen = Path.is_dir, Path.resolve, spawn._popen

    def hang(path: object) -> None:
        if "gone" in str(path):
            over.wait()

    def hanging_is_dir(path: Path) -> bool:
        hang(path)
        return is_dir(path)

    def hanging_resolve(path: Path, strict: bool = False) -> Path:
        hang(path)
        return resolve(path, strict)

    def hanging_popen(spec: spawn.CommandSpec, *args: object) -> object:
        hang(spec.argv[0])
        return popen(spec, *args)  # type: ignore[arg-type]

    def impatient(name: str, *, threads: int = 1, wait_s: float = 0.2) -> BlockingCalls:
        return BlockingCalls(name, threads=threads, wait_s=min(wait_s, 0.2))

    monkeypatch.setattr(Path, "is_dir", hanging_is_dir)
    monkeypatch.setattr(Path, "resolve", hanging_resolve)
    monkeypatch.setattr(spawn, "_popen", hanging_popen)
    for module in (account, log_file, running):
        monkeypatch.setattr(module, "BlockingCalls", impatient)
    yield over
    over.set()


async def test_only_what_hangs_says_so(tmp_path: Path, gone: threading.Event) -> None:
    (tmp_path / "good.log").write_text("good\n")
    files = [*(tmp_path / f"gone-{number}.log" for number in range(20)), tmp_path / "good.log"]
    async with serving(HostSettings(exec=True, user=ME, files=files)) as box:
        for _ in range(2):
            (pod,) = json.loads((await box.get("/pods"))[2])["items"]
            states = {each["name"]: each["state"] for each in pod["status"]["containerStatuses"]}
            assert {name for name, state in states.items() if "running" in state} == {"host", "good.log"}
            assert states["gone-3.log"]["waiting"]["reason"] == "FileNotAnswering"
            assert (await box.get(f"/containerLogs/default/{POD}/gone-3.log"))[0] == 503
            assert (await box.get(f"/containerLogs/default/{POD}/good.log"))[2] == b"good\n"
            assert await box.run("echo", "hello") == (0, b"hello\n", b"")
        gone.set()


async def test_a_program_that_hangs_is_the_matter_of_who_named_it(gone: threading.Event) -> None:
    async with serving(HostSettings(exec=True, user=ME)) as box:
        code, _, stderr = await box.run("/gone/program")
        assert code == 126
        assert b'exec: "/gone/program": not started within' in stderr
        assert await box.run("echo", "hello") == (0, b"hello\n", b"")
        gone.set()


async def test_a_home_that_hangs_keeps_nobody_from_a_shell(
    gone: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = account.Account(ME, 0, 0, (0,), "/home/gone", "/bin/sh", "")
    monkeypatch.setattr(account, "find_account", lambda _user, _shell, _key, _runner: found)
    lookup = AccountLookup(ME, "")
    assert await lookup.account() is found
    assert [await lookup.working_directory() for _ in range(3)] == ["/"] * 3
    gone.set()


async def test_a_directory_of_users_that_does_not_answer(
    gone: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account, "find_account", lambda _user, _shell, _key, _runner: gone.wait())
    async with serving(HostSettings(exec=True, user=ME, files=[Path("/etc/hostname")])) as box:
        (pod,) = json.loads((await box.get("/pods"))[2])["items"]
        host, file = pod["status"]["containerStatuses"]
        assert host["state"]["waiting"]["reason"] == "AccountUnusable"
        assert "see to the name services" in host["state"]["waiting"]["message"]
        assert file["ready"]
        gone.set()
