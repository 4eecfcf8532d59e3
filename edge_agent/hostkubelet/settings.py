"""The checked `[host]` section: what the box's own configuration lets the cloud see and do."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from edge_agent.hostkubelet.exec_rules import ExecRule, ExecRules
from tunnel.core.wire.faults import HOST_SECTION_INVALID, FaultError

_UNIT = re.compile(
    r"[A-Za-z0-9:_.\\-]+(@[A-Za-z0-9:_.\\-]*)?"
    r"\.(service|socket|timer|mount|automount|swap|target|path|slice|scope|device)"
)
_PATTERN = re.compile(r"[*?]")
MAX_UNIT_CHARACTERS = 255
"""The most characters of a unit's name: systemd's own limit (UNIT_NAME_MAX)."""


class SettingsError(FaultError, ValueError):
    """The `[host]` section asks for what this box cannot give; the text says what to change."""

    default_fault = HOST_SECTION_INVALID


MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class RecordingSettings:
    """The settings of recordings: which commands are recorded, and how much is kept."""

    mode: Literal["off", "policy", "always"] = "policy"
    """`policy` records what the server demands to be recorded, `always` also every other command but copies of files;
    with `off`, what must be recorded is refused."""
    folder: Path | None = None
    """The folder of the recordings; None when nothing can be recorded."""
    max_file_bytes: int = 64 * MEBIBYTE
    """The most bytes of one recording; the command that would write more is ended."""
    max_total_bytes: int = 512 * MEBIBYTE
    """The most bytes of all recordings together."""
    on_full: Literal["oldest", "refuse"] = "oldest"
    """What is done when all together would be more: the oldest of the same user are removed,
    or the command is refused or ended.
    """


@dataclass(frozen=True, slots=True)
class HostSettings:
    """The settings of the `[host]` section; with their defaults nothing is reachable."""

    exec: bool = False
    """Whether commands may be run on the box."""
    user: str = "root"
    """The account that everybody's commands run as; not used where there are `rules`."""
    shell: str = ""
    """The value of SHELL for the commands; "" takes the account's own."""
    units: list[str] = field(default_factory=list)
    """The systemd units whose logs may be read, with their suffix: `nginx.service`."""
    files: list[Path] = field(default_factory=list)
    """The log files that may be read, by absolute path."""
    rules: list[ExecRule] = field(default_factory=list)
    """The rules of who may run what as which account; empty when everybody may run anything as `user`."""
    recording: RecordingSettings = RecordingSettings()
    runner: Path | None = None
    """The unix socket of the service that runs commands as other accounts; None when the agent does that itself."""

    @property
    def exec_rules(self) -> ExecRules:
        """Returns the rules for commands; without any, no commands may be run."""
        if not self.exec:
            return ExecRules(())
        return ExecRules(self.rules or [ExecRule(self.user)])

    @property
    def account_key(self) -> str:
        """Returns the key of the section that names the accounts of commands, for errors."""
        return "exec.account" if self.rules else "user"

    def check(self) -> None:
        """Refuses what could never work or would reach more than it says.

        Raises:
            SettingsError: a unit is not the full name of one unit, or a file is not the absolute path of one file.
        """
        for unit in self.units:
            # A pattern would match units that nobody listed.
            if not _UNIT.fullmatch(unit) or unit.startswith("-") or len(unit) > MAX_UNIT_CHARACTERS:
                raise SettingsError(f'units: "{unit}" is not the name of a systemd unit such as "nginx.service"')
            if "@." in unit:
                raise SettingsError(f'units: "{unit}" is a template: name an instance of it such as {_instance(unit)}')
        for file in self.files:
            if not file.is_absolute():
                raise SettingsError(f'files: "{file}" must be an absolute path')
            if not file.name:
                raise SettingsError(f'files: "{file}" is a folder: name a file')
            if _PATTERN.search(str(file)):
                raise SettingsError(f'files: "{file}" is a pattern: name each file')
            if not str(file).isprintable():
                raise SettingsError(f"files: {str(file)!r} has characters that cannot be shown")


def _instance(template: str) -> str:
    name, suffix = template.split("@", 1)
    return f'"{name}@1{suffix}"'
