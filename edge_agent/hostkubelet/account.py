"""The account that commands run as: its ids, its groups and the clean environment that a login would give."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge_agent.hostkubelet.settings import SettingsError
from tunnel.aio.process.blocking import BlockingCalls, NotAnswering

HOME_WAIT_S = 2.0
"""The seconds that a look at the home folder may take: a home on a file system that is gone must not keep anybody from
the shell that could mend it."""
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RUN_ELSEWHERE = Path(__file__).with_name("run_elsewhere.py")
KEY = "user"
"""The key of `[host]` that names the account of everybody's commands."""
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
    setpriv: str
    """The program that switches to the account; "" where this process already runs as it."""
    runner: str = ""
    """The unix socket of the service that runs commands as the account; "" where this process does it itself."""

    def command_line(self, argv: Sequence[str]) -> list[str]:
        """Returns the command line that starts a command as this account.

        `subprocess` could switch by itself, but then it forks instead of vforking, and the fork handlers of gRPC, which
        run in the child, crash it.
        """
        if self.runner:
            return [sys.executable, "-I", "-S", str(RUN_ELSEWHERE), self.runner, self.name, *argv]
        if not self.setpriv:
            return list(argv)
        groups = ",".join(map(str, self.groups))
        return [self.setpriv, f"--reuid={self.uid}", f"--regid={self.gid}", f"--groups={groups}", "--", *argv]

    def environment(self, tty: bool) -> dict[str, str]:
        """Returns the environment of a command; nothing of the agent's own leaks into it but the language."""
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


def find_account(user: str, shell: str, key: str = KEY, runner: str = "") -> Account:
    """Looks up the account that commands are to run as. Blocks.

    Args:
        user: name of the account.
        shell: value of SHELL; "" takes the account's own, `/bin/sh` where that forbids logins.
        key: the key of `[host]` that names the account, for errors.
        runner: as `Account.runner`.

    Raises:
        SettingsError: there is no such account, or this process may not become it.
    """
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise SettingsError(f'{key}: there is no user "{user}" on this box; create it or name another one') from None
    groups = tuple(sorted({entry.pw_gid, *os.getgrouplist(user, entry.pw_gid)}))
    shell, home = shell or _login_shell(entry.pw_shell), entry.pw_dir or "/"
    if runner:
        return Account(user, entry.pw_uid, entry.pw_gid, groups, home, shell, "", runner)
    if os.geteuid() not in (0, entry.pw_uid):
        mine = _current_user()
        raise SettingsError(
            f'{key}: only root can run commands as "{user}"; set host.runner, run the agent as root or name "{mine}"'
        )
    setpriv = _find_setpriv(user, key) if _needs_switch(entry.pw_uid, entry.pw_gid, groups) else ""
    return Account(user, entry.pw_uid, entry.pw_gid, groups, home, shell, setpriv)


class AccountLookup:
    """The lookup of the account, made when it is needed.

    Users may come from a directory service that is late, or never answers.
    """

    def __init__(self, user: str, shell: str, key: str = KEY, runner: str = "") -> None:
        """Prepares the lookup of an account; the arguments are those of `find_account`."""
        self._runner = runner
        self._key = key
        self._user = user
        self._shell = shell
        self._found: Account | None = None
        self._calls = BlockingCalls(f"account {user}")
        self._home = BlockingCalls(f"home of {user}", wait_s=HOME_WAIT_S)

    async def account(self) -> Account:
        """Returns the account, which is looked up until it was found once.

        Raises:
            SettingsError: there is none yet, it cannot be used, or nothing answers.
        """
        if self._found is None:
            try:
                find = partial(find_account, self._user, self._shell, self._key, self._runner)
                self._found = await self._calls.run(find)
            except NotAnswering:
                raise SettingsError(
                    f'{self._key}: looking up "{self._user}" takes too long: see to the name services of this box'
                ) from None
        return self._found

    async def working_directory(self) -> str:
        """Returns the folder where commands start: the account's home, or `/` where it has none that answers.

        Raises:
            SettingsError: as for `account`.
        """
        home = (await self.account()).home
        if self._runner:
            return "/"  # the home is not this process's to look at; the service starts the command there
        try:
            return home if await self._home.run(Path(home).is_dir) else "/"
        except NotAnswering:
            return "/"


def terminal_group() -> int:
    """Returns the id of the group that owns terminals, so that `write` and `mesg` work; -1 where there is none."""
    try:
        return grp.getgrnam("tty").gr_gid
    except KeyError:
        return -1


def _needs_switch(uid: int, gid: int, groups: tuple[int, ...]) -> bool:
    """Returns whether a command must change its ids. Only root can, and root that already is the account need not."""
    if os.geteuid() != 0:
        return False
    return (uid, gid) != (0, os.getegid()) or {*os.getgroups(), os.getegid()} != set(groups)


def _find_setpriv(user: str, key: str) -> str:
    program = shutil.which("setpriv", path=PATH)
    if program is None:
        raise SettingsError(f'{key}: running commands as "{user}" needs the program setpriv; install util-linux')
    return program


def _login_shell(shell: str) -> str:
    # Programs that start $SHELL (editors, multiplexers) would only fail with a shell that refuses to run.
    return DEFAULT_SHELL if not shell or Path(shell).name in _NO_LOGIN else shell


def _current_user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
