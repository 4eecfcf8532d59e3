"""Which account commands run as, and the environment that they get."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

import pytest

from edge_agent.hostkubelet import account
from edge_agent.hostkubelet.account import find_account
from edge_agent.hostkubelet.settings import HostSettings, SettingsError
from tests.edge_agent.hostkubelet.conftest import serving

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


def test_an_unknown_user_is_refused_with_what_to_do() -> None:
    with pytest.raises(SettingsError, match='no user "no-such-user" on this box; create it or name another one'):
        find_account("no-such-user", "")


def test_only_root_can_become_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 65534)
    with pytest.raises(SettingsError, match=r'only root can run commands as "root"; .* name "nobody"'):
        find_account("root", "")


def test_an_agent_without_root_runs_commands_as_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = pwd.getpwnam("nobody")
    monkeypatch.setattr(os, "geteuid", lambda: nobody.pw_uid)
    assert find_account("nobody", "").command_line(["id"]) == ["id"]


@AS_ROOT
def test_without_the_program_that_switches_the_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account, "PATH", "/nowhere")
    with pytest.raises(SettingsError, match="needs the program setpriv; install util-linux"):
        find_account("nobody", "")


def test_a_shell_that_refuses_to_run_is_replaced() -> None:
    assert find_account("root", "").shell == pwd.getpwnam("root").pw_shell
    assert find_account("root", "/bin/dash").shell == "/bin/dash"
    if os.geteuid() == 0:
        assert find_account("nobody", "").shell == "/bin/sh"


async def test_the_environment_is_that_of_a_login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENT_SECRET", "leaked")
    monkeypatch.delenv("LANG", raising=False)
    user = pwd.getpwuid(os.geteuid())
    async with serving(HostSettings(exec=True, user=user.pw_name, shell="/bin/dash")) as box:
        _, stdout, _ = await box.run("env")
        _, directory, _ = await box.run("pwd")
        _, mask, _ = await box.run("sh", "-c", "umask")
    assert dict(line.split("=", 1) for line in stdout.decode().splitlines()) == {
        "HOME": user.pw_dir,
        "LANG": "C.UTF-8",
        "LOGNAME": user.pw_name,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "SHELL": "/bin/dash",
        "USER": user.pw_name,
    }
    assert directory.decode() == f"{user.pw_dir}\n"
    assert mask == b"0022\n"


@AS_ROOT
@pytest.mark.parametrize("tty", [False, True])
async def test_commands_run_as_the_configured_user(tty: bool) -> None:
    async with serving(HostSettings(exec=True, user="nobody")) as box:
        client = await box.exec("sh", "-c", "id -u; id -ru; id -g; id -G; echo $HOME $USER $SHELL; pwd", tty=tty)
        assert await client.finish() == 0
        await client.duplex.aclose()
        refused, _, _ = await box.run("cat", "/etc/shadow")
    nobody = pwd.getpwnam("nobody")
    assert client.stdout.decode().split() == [
        str(nobody.pw_uid),
        str(nobody.pw_uid),
        str(nobody.pw_gid),
        *(str(group) for group in os.getgrouplist("nobody", nobody.pw_gid)),
        nobody.pw_dir,
        "nobody",
        "/bin/sh",
        "/",  # a home that does not exist
    ]
    assert refused == 1


@AS_ROOT
async def test_a_program_that_does_not_exist_for_a_switched_user() -> None:
    async with serving(HostSettings(exec=True, user="nobody")) as box:
        code, _, stderr = await box.run("no-such-program")
    assert code == 127
    assert b"no-such-program" in stderr


@AS_ROOT
async def test_a_switched_user_owns_its_terminal() -> None:
    async with serving(HostSettings(exec=True, user="nobody")) as box:
        client = await box.exec("sh", "-c", "echo mine >$(tty); stat -c %U $(tty)", tty=True)
        assert await client.finish() == 0
    assert client.stdout.split() == [b"mine", b"nobody"]


@AS_ROOT
async def test_a_switched_user_is_hung_up_too() -> None:
    async with serving(HostSettings(exec=True, user="nobody")) as box:
        client = await box.exec("sleep", "60")
        await client.receive()
        # `serving` sees that nothing is left.


def test_a_service_becomes_the_account_where_this_process_may_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    account = find_account("root", "", runner="/run/commands.sock")
    program, *words, client, socket, name, command = account.command_line(["id"])
    assert (program, words, socket, name, command) == (sys.executable, ["-I", "-S"], "/run/commands.sock", "root", "id")
    assert Path(client).name == "run_elsewhere.py"
