"""Noticing the end of a child with a pidfd, and with a thread where the kernel has none."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest

from edge_agent.hostkubelet.exit_watch import watch_exit


async def exit_codes(scripts: dict[str, int]) -> None:
    for script, expected in scripts.items():
        process = subprocess.Popen(["sh", "-c", script])
        seen: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        watch_exit(process.pid, seen.set_result)
        async with asyncio.timeout(10):
            assert await seen == expected
        assert os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG), "not reaped"
        process.wait()


SCRIPTS = {"exit 0": 0, "sleep 0.1; exit 7": 7, "kill -9 $$": 137}


@pytest.mark.may_block("the test itself starts processes")
async def test_with_a_pidfd() -> None:
    await exit_codes(SCRIPTS)


@pytest.mark.may_block("the test itself starts processes")
async def test_without_a_pidfd(monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(pid: int, flags: int = 0) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", unsupported)
    await exit_codes(SCRIPTS)
