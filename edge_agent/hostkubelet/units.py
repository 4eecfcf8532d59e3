"""Reads the states of systemd units from `systemctl show`, and says them as container states."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from edge_agent.hostkubelet.running import Running
from edge_agent.hostkubelet.spawn import CommandSpec, StartError

PROPERTIES = (
    "LoadState",
    "ActiveState",
    "SubState",
    "ActiveEnterTimestampMonotonic",
    "InactiveEnterTimestampMonotonic",
    "ExecMainCode",
    "ExecMainStatus",
    "NRestarts",
)
FRESH_S = 2.0
"""The seconds for which an answer of systemd is good; `kubectl get -w` and dashboards ask often."""
ANSWER_WAIT_S = 5.0
MAX_ANSWER_BYTES = 1024 * 1024
_KILLED, _DUMPED = "2", "3"
"""The codes CLD_KILLED and CLD_DUMPED of waitid(2): with them, ExecMainStatus is a signal."""


@dataclass(frozen=True, slots=True)
class ContainerState:
    """The state of one container, as its container status says it."""

    state: dict[str, Any]
    """The state as a v1.ContainerState."""
    running: bool = False
    restarts: int = 0
    exists: bool = True
    """Whether there is such a thing that can be read."""


UNKNOWN = ContainerState({"waiting": {"reason": "Unknown", "message": "systemd does not answer on this box"}})


class Units:
    """The states of the configured units."""

    def __init__(self, running: Running, names: Sequence[str], program: str = "systemctl") -> None:
        self._running = running
        self._names = names
        self._program = program
        self._asking = asyncio.Lock()
        self._asked_at = float("-inf")
        self._states: dict[str, ContainerState] = {}

    async def states(self) -> Mapping[str, ContainerState]:
        """Returns the state of each unit by its name; all unknown on a box without systemd."""
        if not self._names:
            return {}
        async with self._asking:
            now = asyncio.get_running_loop().time()
            if now - self._asked_at > FRESH_S:
                self._states = await self._ask()
                self._asked_at = now
            return self._states

    async def is_unknown(self, name: str) -> bool:
        """Returns whether systemd says that there is no such unit; False where it does not answer."""
        return not (await self.states())[name].exists

    # Internal

    async def _ask(self) -> dict[str, ContainerState]:
        arguments = ["show", f"--property={','.join(PROPERTIES)}", "--", *self._names]
        try:
            command = await self._running.start(CommandSpec(argv=[self._program, *arguments]))
        except StartError:
            return dict.fromkeys(self._names, UNKNOWN)
        answer = bytearray()
        try:
            async with asyncio.timeout(ANSWER_WAIT_S):
                while len(answer) < MAX_ANSWER_BYTES and (chunk := await command.stdout.read()):
                    answer += chunk
        except TimeoutError:
            answer.clear()
        finally:
            command.end()
        now, uptime_s = datetime.now(UTC), time.clock_gettime(time.CLOCK_MONOTONIC)
        return parse_states(self._names, answer.decode("utf-8", "replace"), now - timedelta(seconds=uptime_s))


def parse_states(names: Sequence[str], answer: str, booted_at: datetime) -> dict[str, ContainerState]:
    """Reads the answer of `systemctl show`: one block of `Name=value` lines for each unit, in the order asked.

    Args:
        names: the units asked for.
        answer: what systemctl wrote.
        booted_at: the zero of systemd's monotonic times.

    Returns:
        The state of each unit by its name; all unknown when the answer is not whole.
    """
    blocks = [dict(line.partition("=")[::2] for line in block.splitlines()) for block in answer.strip().split("\n\n")]
    if len(blocks) != len(names) or not all("ActiveState" in block for block in blocks):
        return dict.fromkeys(names, UNKNOWN)
    return {name: _state(block, booted_at) for name, block in zip(names, blocks, strict=True)}


def _state(unit: Mapping[str, str], booted_at: datetime) -> ContainerState:
    active, sub = unit.get("ActiveState", ""), unit.get("SubState", "")
    restarts = _number(unit, "NRestarts")
    started = _time(unit, "ActiveEnterTimestampMonotonic", booted_at)
    if active in ("active", "reloading", "refreshing", "deactivating"):
        return ContainerState({"running": {"startedAt": started} if started else {}}, True, restarts)
    if active == "activating":
        return ContainerState({"waiting": {"reason": "Activating", "message": f"the unit is {sub}"}}, False, restarts)
    if unit.get("LoadState") not in ("loaded", "masked"):
        text = "systemd knows no such unit on this box"
        return ContainerState({"waiting": {"reason": "UnitNotFound", "message": text}}, exists=False)
    finished = _time(unit, "InactiveEnterTimestampMonotonic", booted_at)
    if active == "inactive" and finished is None:
        return ContainerState({"waiting": {"reason": "Inactive", "message": "the unit was not started since boot"}})
    return ContainerState({"terminated": _terminated(unit, started, finished)}, False, restarts)


def _terminated(unit: Mapping[str, str], started: str | None, finished: str | None) -> dict[str, Any]:
    status = _number(unit, "ExecMainStatus")
    failed = unit.get("ActiveState") == "failed"
    terminated: dict[str, Any] = {"exitCode": status, "reason": "Error" if failed else "Completed"}
    if unit.get("ExecMainCode") in (_KILLED, _DUMPED):
        terminated |= {"exitCode": 128 + status, "signal": status}
    if not failed:
        terminated["exitCode"] = 0  # systemd takes a service that SIGTERM ended for one that succeeded
    elif not terminated["exitCode"]:
        terminated["exitCode"] = 1  # failed without a process that did: a time-out, a dependency
    return terminated | {key: at for key, at in (("startedAt", started), ("finishedAt", finished)) if at}


def _number(unit: Mapping[str, str], name: str) -> int:
    text = unit.get(name, "")
    return int(text) if text.isascii() and text.isdigit() else 0


def _time(unit: Mapping[str, str], name: str, booted_at: datetime) -> str | None:
    microseconds = _number(unit, name)
    return kubernetes_time(booted_at + timedelta(microseconds=microseconds)) if microseconds else None


def kubernetes_time(moment: datetime) -> str:
    """Returns a UTC time as objects of Kubernetes carry it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
