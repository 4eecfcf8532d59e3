"""Runs `cloud-server upgrade`: asks the running server to hand over to a new process, and waits for how that went."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cloud_server.handover import PID_FILE, START_S, Outcome
from tunnel.aio.process.pid_file import running
from tunnel.core.wire.faults import NO_SERVER_TO_UPGRADE, NOT_UPGRADED, SYSTEM_REFUSED, FaultError
from tunnel.core.wire.spoken import spoken_s

ANSWER_S = START_S + 10.0
POLL_S = 0.05
_ASKING_FILE: Final = "upgrade.lock"
"""The file that the command locks while it asks: an outcome belongs to the one that asked."""


class UpgradeFailed(FaultError):
    """The running server goes on as it was; the text says why."""

    default_fault = NOT_UPGRADED


def ask_for_upgrade(state: Path) -> int:
    """Upgrades the server of a state folder; returns the id of the process that has taken over. Blocks.

    Raises:
        UpgradeFailed: no process has taken over.
    """
    try:
        with _alone(state):
            pid = running(state / PID_FILE)
            if pid is None:
                raise UpgradeFailed(f"no server runs with {state}: nothing to upgrade, start it", NO_SERVER_TO_UPGRADE)
            before = Outcome.read(state)
            os.kill(pid, signal.SIGUSR2)
            outcome = _outcome(state, pid, before)
    except PermissionError as error:
        raise UpgradeFailed(f"run this as the user of the server, or as root: {error}", SYSTEM_REFUSED) from error
    except OSError as error:
        raise UpgradeFailed(f"the running server cannot be asked: {error}", SYSTEM_REFUSED) from error
    if not outcome.successor:
        raise UpgradeFailed(f"not upgraded, process {pid} goes on: {outcome.reason}")
    return outcome.successor


# Internal


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    with (state / _ASKING_FILE).open("w") as asking:
        try:
            fcntl.flock(asking, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UpgradeFailed("another command upgrades this server already") from None
        yield


def _outcome(state: Path, pid: int, before: Outcome | None) -> Outcome:
    give_up_s = time.monotonic() + ANSWER_S
    while time.monotonic() < give_up_s:
        outcome = Outcome.read(state)
        if outcome is not None and outcome != before and outcome.of == pid:
            return outcome
        time.sleep(POLL_S)
    raise UpgradeFailed(f"process {pid} has not said within {spoken_s(ANSWER_S)} how it went; its log tells")
