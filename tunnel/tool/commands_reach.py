"""`longline connect`, `ssh` and `forward`: TCP on boxes and behind them, through the CONNECT listener."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click

from tunnel.aio.process.command import Failed
from tunnel.core.wire.faults import SSH_MISSING
from tunnel.tool.access_options import Where, connector, told, via_options, where_options
from tunnel.tool.completion import complete_box, complete_box_or_user


@click.command(short_help="Join standard input and output to a port of a box.")
@where_options
@via_options
@click.argument("target", shell_complete=complete_box)
def connect(where: Where, via: str | None, proxy: str | None, target: str) -> None:
    """Join standard input and output to TARGET, such as box-7:22 or printer.box-7.longline:631.

    For ssh: -o ProxyCommand='longline connect %h:%p'; longline ssh does that.
    """
    from tunnel.tool.relay import relay

    reach = connector(where, via, proxy)
    with told():
        relay(*reach(target))


@click.command(
    short_help="Run ssh to a box.",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@where_options
@via_options
@click.argument("destination", metavar="[USER@]BOX", shell_complete=complete_box_or_user)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[SSH OPTIONS AND COMMAND]...")
def ssh(where: Where, via: str | None, proxy: str | None, destination: str, words: tuple[str, ...]) -> None:
    """Run this system's ssh to a box, or to a host behind it such as printer.box-7.longline.

    \b
    longline ssh root@box-7
    longline ssh admin@box-7 -p 2222 -L 8080:localhost:80

    What stands behind the box goes to ssh as it is. The box must allow its port 22 ([[allow]]). Its key is remembered
    in known_hosts under its own name and its server's, so that no two boxes are taken for one.
    """  # noqa: D301 - click takes the character itself
    program = shutil.which("ssh")
    if program is None:
        raise Failed("there is no ssh here: install OpenSSH's client", SSH_MISSING)
    reach = connector(where, via, proxy)
    host = destination.rpartition("@")[2]
    server = reach.access.url.hostname if reach.access is not None else "localhost"
    command = [*_this_command(), "connect", *where.words(), "--via", _absolute(reach.via)]
    command += ["--proxy", proxy] if proxy else []
    options = {
        # ssh gives it to a shell, behind its own reading of %.
        "ProxyCommand": shlex.join(command).replace("%", "%%") + " %h:%p",
        "HostKeyAlias": f"{host}.{server}",
        "CheckHostIP": "no",
    }
    argv = [program, *(word for name, value in options.items() for word in ("-o", f"{name}={value}")), destination]
    argv += words
    if os.name == "posix":
        sys.stdout.flush()
        os.execv(program, argv)  # noqa: S606 - ssh takes our place, with our terminal
    sys.exit(subprocess.run(argv, check=False).returncode)


def _absolute(via: str) -> str:
    return str(Path(via).absolute()) if "/" in via else via


def _this_command() -> list[str]:
    """Returns the words that start this program, for another program to start it."""
    program = Path(sys.argv[0])
    found = program.absolute() if program.is_file() else shutil.which(program.name)
    if found and os.access(found, os.X_OK) and Path(found).suffix != ".py":
        return [str(found)]
    return [sys.executable, "-c", "from tunnel.tool.cli import main; main()"]


@click.command(short_help="Listen on ports here that lead to boxes.")
@where_options
@via_options
@click.option(
    "-L",
    "forwards",
    multiple=True,
    required=True,
    metavar="[BIND:]PORT:TARGET",
    help="Listen on PORT here and carry each connection to TARGET, such as 8080:box-7:80; may repeat.",
)
def forward(where: Where, via: str | None, proxy: str | None, forwards: tuple[str, ...]) -> None:
    """Listen on ports here and carry what comes in to boxes, until Ctrl-C.

    \b
    longline forward -L 2222:box-7:22 -L 8080:box-7:80
    longline forward -L '*:8631:printer.box-7.longline:631'

    Without BIND only this machine can connect; PORT 0 takes any that is free. A server that is away is found again by
    the next connection.
    """  # noqa: D301 - click takes the character itself
    from tunnel.tool.forwards import Forwards, ForwardUnusable, parse_forward

    reach = connector(where, via, proxy)
    if reach.access is not None:
        with told():
            reach.access.tls()  # what is wrong with it is told now, not at the first connection
    made = Forwards(reach, lambda line: click.echo(line, err=True))
    try:
        made.listen([parse_forward(text) for text in forwards])
    except ForwardUnusable as error:
        raise Failed.of(error) from error
    try:
        with told():
            made.serve()
    finally:
        made.close()
