"""The offer of a box by its `[host]` section: made whole from the settings, and replaced whole by other settings."""

from __future__ import annotations

from datetime import datetime

from edge_agent.hostkubelet.account import AccountLookup
from edge_agent.hostkubelet.container_states import ContainerStates
from edge_agent.hostkubelet.journal import Journal
from edge_agent.hostkubelet.log_file import LogFile
from edge_agent.hostkubelet.log_request import Logs
from edge_agent.hostkubelet.pod import Container, containers
from edge_agent.hostkubelet.running import Running
from edge_agent.hostkubelet.settings import HostSettings
from edge_agent.hostkubelet.units import Units


class Offer:
    """The containers that the box offers, and what stands behind each."""

    def __init__(
        self,
        settings: HostSettings,
        running: Running,
        since: datetime,
        *,
        journalctl: str = "journalctl",
        systemctl: str = "systemctl",
        before: Offer | None = None,
    ) -> None:
        """Checks the settings. What they name is looked at when it is asked for, in threads of its own.

        Args:
            settings: what the box allows.
            running: starts the programs.
            since: when the agent began to offer anything.
            journalctl: program that reads the journal.
            systemctl: program that knows the units' states.
            before: what was offered until now: its files keep the places that they were found at. None: nothing was.

        Raises:
            SettingsError: the settings ask for what no box can give.
        """
        settings.check()
        self.settings = settings
        self.rules = settings.exec_rules
        runner = str(settings.runner) if settings.runner is not None else ""
        self.accounts = {
            name: AccountLookup(name, settings.shell, settings.account_key, runner) for name in self.rules.accounts
        }
        self.containers = {container.name: container for container in containers(settings)}
        known: dict[str, LogFile] = before.files if before is not None else {}
        self.files: dict[str, LogFile] = {str(file): known.get(str(file)) or LogFile(file) for file in settings.files}
        for name in self.files.keys() - known.keys():
            self.files[name].calls.post(self.files[name].pin)
        units = Units(running, list(dict.fromkeys(settings.units)), systemctl)
        self.logs = Logs(Journal(running, journalctl), units, self.files)
        self.states = ContainerStates([*self.containers.values()], self.accounts, units, self.files, since)

    def still_offers(self, container: Container) -> bool:
        """Returns whether a log that was begun under earlier settings may go on.

        It goes by its source, whatever its name is now.
        """
        return any((one.kind, one.source) == (container.kind, container.source) for one in self.containers.values())
