"""Notices that a child has ended without reaping it: its pid, and with it its process group, stays ours until then.

It needs no SIGCHLD handler, so that it works with asyncio, uvloop and beside any other user of child processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable


def watch_exit(pid: int, ended: Callable[[int], None]) -> None:
    """Calls `ended` once, in the running loop, with the exit code; 128 + n for a child that signal n ended."""
    loop = asyncio.get_running_loop()
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:  # Linux before 5.3, or a sandbox that forbids it
        threading.Thread(target=_wait_in_thread, args=(loop, pid, ended), name=f"wait-{pid}", daemon=True).start()
        return

    def readable() -> None:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        ended(_wait_for_exit(pid))

    loop.add_reader(descriptor, readable)


def _wait_in_thread(loop: asyncio.AbstractEventLoop, pid: int, ended: Callable[[int], None]) -> None:
    exit_code = _wait_for_exit(pid)
    with contextlib.suppress(RuntimeError):  # the loop was closed before the child ended
        loop.call_soon_threadsafe(ended, exit_code)


def _wait_for_exit(pid: int) -> int:
    result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert result is not None  # only with WNOHANG
    return result.si_status if result.si_code == os.CLD_EXITED else 128 + result.si_status
