"""The states of everything that the box offers: the account for commands, units, files. No look waits for another."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from edge_agent.hostkubelet.account import AccountLookup
from edge_agent.hostkubelet.log_file import LogFile
from edge_agent.hostkubelet.pod import Container, Kind
from edge_agent.hostkubelet.settings import SettingsError
from edge_agent.hostkubelet.units import ContainerState, Units, kubernetes_time
from tunnel.aio.process.blocking import NotAnswering


class ContainerStates:
    """Finds out the states of containers from what they stand for."""

    def __init__(
        self,
        offered: Sequence[Container],
        accounts: Mapping[str, AccountLookup],
        units: Units,
        files: Mapping[str, LogFile],
        since: datetime,
    ) -> None:
        """Takes the sources that it asks.

        Args:
            offered: the containers.
            accounts: the accounts of commands by name; empty: there is no container for them.
            units: all units that are offered.
            files: the log files by path.
            since: when the agent began to offer them.
        """
        self._offered = offered
        self._accounts = accounts
        self._units = units
        self._files = files
        self._running = ContainerState({"running": {"startedAt": kubernetes_time(since)}}, running=True)

    async def read(self) -> dict[str, ContainerState]:
        """Returns the state of each container by its name."""
        async with asyncio.TaskGroup() as tasks:
            asked = {container.name: tasks.create_task(self._state(container)) for container in self._offered}
        return {name: task.result() for name, task in asked.items()}

    # Internal

    async def _state(self, container: Container) -> ContainerState:
        match container.kind:
            case Kind.UNIT:
                return (await self._units.states())[container.source]
            case Kind.FILE:
                return await self._file(self._files[container.source])
            case Kind.HOST:
                return await self._host()

    async def _file(self, file: LogFile) -> ContainerState:
        try:
            fault = await file.calls.run(file.look)
        except NotAnswering:
            fault = file.hanging
        return self._running if fault is None else _absent(fault.reason, fault.text)

    async def _host(self) -> ContainerState:
        """Returns the state of the host: it is there as long as commands can run as one of its accounts."""
        faults = await unusable(self._accounts.values())
        if len(faults) == len(self._accounts):
            return _absent("AccountUnusable", "; ".join(faults))
        return self._running


async def unusable(accounts: Iterable[AccountLookup]) -> list[str]:
    """Returns a line for each account that commands cannot run as now. All are looked up at once."""
    async with asyncio.TaskGroup() as tasks:
        asked = [tasks.create_task(_fault(account)) for account in accounts]
    return [fault for task in asked if (fault := task.result())]


async def _fault(account: AccountLookup) -> str:
    try:
        await account.account()
    except SettingsError as error:
        return str(error)
    return ""


def _absent(reason: str, text: str) -> ContainerState:
    return ContainerState({"waiting": {"reason": reason, "message": text}}, exists=False)
