"""The account that commands run as: ids, groups and the clean environment a login would give."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from edge_agent.hostkubelet.settings import SettingsError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = "/bin/sh"
_NO_LOGIN = ("nologin", "false")


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this box."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    """All groups of the account, its own included."""
    home: str
    shell: str

    @property
    def needs_switch(self) -> bool:
        """A command must change its ids; only root can, and root that already is this account need not."""
        if os.geteuid() != 0:
            return False
        same_groups = set(os.getgroups()) | {os.getegid()} == set(self.groups)
        return (self.uid, self.gid) != (0, os.getegid()) or not same_groups

    def working_directory(self) -> str:
        """Where commands start: the home, or `/` for an account that has none."""
        return self.home if Path(self.home).is_dir() else "/"

    def environment(self, tty: bool) -> dict[str, str]:
        """Variables of a command; nothing of the agent's own leaks into it but the language."""
        variables = {
            "HOME": self.home,
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            "LOGNAME": self.name,
            "PATH": PATH,
            "SHELL": self.shell,
            "USER": self.name,
        }
        if tty:
            # The protocol does not tell the client's terminal; every terminal of today understands xterm.
            variables["TERM"] = "xterm"
        return variables


def find_account(user: str, shell: str) -> Account:
    """Look up the account that commands are to run as.

    Args:
        user: name of the account.
        shell: value of SHELL; "" takes the account's own, `/bin/sh` where that forbids logins.

    Raises:
        SettingsError: there is no such account, or this process may not become it.
    """
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise SettingsError(f'user: there is no user "{user}" on this box; create it or name another one') from None
    if os.geteuid() not in (0, entry.pw_uid):
        mine = _current_user()
        raise SettingsError(
            f'user: only root can run commands as "{user}"; run the agent as root or set user = "{mine}"'
        )
    groups = tuple(sorted({entry.pw_gid, *os.getgrouplist(user, entry.pw_gid)}))
    return Account(user, entry.pw_uid, entry.pw_gid, groups, entry.pw_dir or "/", shell or _login_shell(entry.pw_shell))


def terminal_group() -> int:
    """Group that owns terminals, so that `write` and `mesg` work; -1 where there is none."""
    try:
        return grp.getgrnam("tty").gr_gid
    except KeyError:
        return -1


def _login_shell(shell: str) -> str:
    # Programs that start $SHELL (editors, multiplexers) would only fail with a shell that refuses to run.
    return DEFAULT_SHELL if not shell or Path(shell).name in _NO_LOGIN else shell


def _current_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
