"""The `reload` command of both daemons: the running one reads its configuration anew, and the command tells of it."""

from __future__ import annotations

from pathlib import Path

import click

from tunnel.aio.operate.admin import SOCKET_NAME
from tunnel.aio.operate.admin_client import AdminRefused, AdminUnreachable, unix_client
from tunnel.aio.process.command import Failed
from tunnel.aio.process.config import state_folder
from tunnel.core.wire.faults import BUG, FAULTS, Fault


def ask_to_reload(config: Path, unreachable: Fault) -> None:
    """Asks the daemon of a configuration file to read it anew, and prints what has changed.

    Raises:
        Failed: no daemon runs, which is `unreachable`, or the file cannot be used and the one before stays.
    """
    try:
        done = unix_client(state_folder(config) / SOCKET_NAME).call("POST", "reload")
    except AdminUnreachable as error:
        raise Failed(str(error), unreachable) from error
    except AdminRefused as error:
        raise Failed(f"the configuration before stays: {error}", FAULTS.get(error.code, BUG)) from error
    for change in done["changed"]:
        click.echo(f"changed: {change}")
    for change in done["needs_restart"]:
        click.echo(f"needs a restart: {change}")
    if not done["changed"]:
        click.echo("nothing has changed")
