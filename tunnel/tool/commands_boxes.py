"""`longline ls`, `exec`, `logs`, `cp`: what is done on boxes through the fleet API."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunnel.aio.process.command import Failed
from tunnel.tool.access_options import CommandFailed, Where, output_option, told, where_options
from tunnel.tool.completion import complete_box, complete_copy, complete_log

if TYPE_CHECKING:
    from tunnel.tool.api import Api
    from tunnel.tool.boxes import Box

_BOX_PATH = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?):(.*)", re.DOTALL)
_DURATION = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class Duration(click.ParamType[int]):
    """The type of option values such as 90s, 10m, 2h, 1d, or several of them: 1h30m."""

    name = "DURATION"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Returns the seconds that a value of the command line stands for; ends the command if it is no duration."""
        text = str(value)
        if not re.fullmatch(f"(?:{_DURATION.pattern})+", text):
            self.fail(f"{text!r} is no duration: write 90s, 10m, 2h or 1d", param, ctx)
        return sum(int(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text))


@click.command("ls", short_help="List the boxes, or what one of them offers.")
@where_options
@click.option("-l", "--selector", default="", metavar="LABELS", help="Only boxes with these labels: site=lyon.")
@output_option("table", "wide", "json", "name")
@click.argument("box", required=False, shell_complete=complete_box)
def ls(where: Where, selector: str, output: str, box: str | None) -> None:
    """List the boxes; with BOX, list what that box offers: its shell, units and files."""
    from tunnel.tool.boxes import list_boxes

    api = where.api()
    with told():
        if box is not None:
            _show_offers(api, box, output)
            return
        boxes = list_boxes(api, selector)
        if output == "json":
            click.echo(json.dumps([one.shown() for one in boxes], indent=2))
        elif output == "name":
            click.echo("".join(f"{one.name}\n" for one in boxes), nl=False)
        elif not boxes:
            click.echo("no boxes" + (f" with {selector}" if selector else " have joined"), err=True)
        else:
            click.echo(_boxes_table(boxes, wide=output == "wide"))


def _boxes_table(boxes: Sequence[Box], *, wide: bool) -> str:
    from tunnel.tool.tables import age, table

    rows: list[list[object]] = []
    for box in boxes:
        row: list[object] = [box.name, box.state, age(box.since)]
        row += [box.version, box.address, box.architecture, box.system] if wide else []
        rows.append([*row, ",".join(f"{name}={value}" for name, value in sorted(box.labels.items()))])
    more = ["VERSION", "ADDRESS", "ARCH", "SYSTEM"] if wide else []
    return table(["NAME", "STATE", "SINCE", *more, "LABELS"], rows)


def _show_offers(api: Api, box: str, output: str) -> None:
    from tunnel.tool.api import ApiFailed
    from tunnel.tool.boxes import offers_of, unknown_box
    from tunnel.tool.tables import table

    try:
        offers = offers_of(api, box)
    except ApiFailed as error:
        raise unknown_box(api, box, error) from error
    if output == "json":
        fields = ("name", "source", "state", "restarts")
        click.echo(json.dumps([{name: getattr(one, name) for name in fields} for one in offers], indent=2))
    elif output == "name":
        click.echo("".join(f"{one.name}\n" for one in offers), nl=False)
    else:
        rows = [(one.name, one.source, one.state, one.restarts) for one in offers]
        click.echo(table(("NAME", "SOURCE", "STATE", "RESTARTS"), rows))


@click.command(
    "exec",
    short_help="Run a command on a box, or on many at once.",
    context_settings={"allow_interspersed_args": False},
)
@where_options
@click.option("-i", "--stdin", "stdin", is_flag=True, help="Feed the command with standard input.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-l", "--selector", default="", metavar="LABELS", help="On all boxes with these labels, at once.")
@click.option("--at-once", type=click.IntRange(1, 256), default=16, show_default=True, help="With -l: boxes at a time.")
@click.option("--lines", type=click.IntRange(0), default=5, show_default=True, help="With -l: lines of output shown.")
@output_option("table", "json")
@click.argument("words", nargs=-1, metavar="[BOX] -- COMMAND...", type=click.UNPROCESSED, shell_complete=complete_box)
def exec_(
    where: Where, stdin: bool, tty: bool, selector: str, at_once: int, lines: int, output: str, words: tuple[str, ...]
) -> None:
    """Run a command on a box, or, with -l, on all boxes with these labels at once.

    \b
    longline exec -it box-7 -- sh
    longline exec -l site=lyon -- uptime

    The exit code is the command's own, 255 where it could not be run. On many boxes it is 0 if it was 0 on all, else 1.
    """  # noqa: D301 - click takes the character itself
    if selector:
        command = _without_dashes(words)
        if not command:
            raise click.UsageError("give a command: longline exec -l LABELS -- COMMAND")
        if stdin or tty:
            raise click.UsageError("-i and -t are for one box: leave out -l")
        _exec_on_many(where, selector, command, at_once, lines, output)
        return
    box, command = words[0] if words else "", _without_dashes(words[1:])
    if not box or box == "--" or not command:
        raise click.UsageError("give a box and a command: longline exec BOX -- COMMAND")
    _exec_on_one(where, box, command, stdin=stdin, tty=tty)


def _without_dashes(words: tuple[str, ...]) -> list[str]:
    return list(words[1:] if words and words[0] == "--" else words)


def _exec_on_one(where: Where, box: str, command: list[str], *, stdin: bool, tty: bool) -> None:
    from contextlib import nullcontext

    from tunnel.tool.api import ApiFailed
    from tunnel.tool.boxes import unknown_box
    from tunnel.tool.relay import STDIN
    from tunnel.tool.remote_exec import Channel, Descriptor, run_command
    from tunnel.tool.terminal import NoTerminal, raw_terminal

    def write(channel: Channel, data: bytes) -> None:
        out = sys.stdout.buffer if channel is Channel.STDOUT else sys.stderr.buffer
        out.write(data)
        out.flush()

    api = where.api()
    with told(CommandFailed):
        try:
            with raw_terminal() if tty else nullcontext() as terminal:
                source = Descriptor(STDIN) if stdin else None
                code = run_command(api, box, command, write, source=source, terminal=terminal)
        except NoTerminal as error:
            raise click.UsageError(str(error)) from error
        except ApiFailed as error:
            raise unknown_box(api, box, error) from error
    sys.exit(code)


def _exec_on_many(where: Where, selector: str, command: list[str], at_once: int, lines: int, output: str) -> None:
    from tunnel.tool.boxes import chosen_boxes
    from tunnel.tool.many_boxes import Ran, results_table, run_on_all

    api = where.api()
    with told(CommandFailed):
        boxes = chosen_boxes(api, selector)
        ended = 0

        def done(_ran: Ran) -> None:
            nonlocal ended
            ended += 1
            if sys.stderr.isatty() and len(boxes) > 1:
                click.echo(f"\r{ended} of {len(boxes)} boxes", nl=ended == len(boxes), err=True)

        results = run_on_all(api, boxes, command, at_once, done)
    if output == "json":
        click.echo(json.dumps([ran.shown() for ran in results], indent=2))
    else:
        click.echo(results_table(results, lines))
    sys.exit(0 if all(ran.exit_code == 0 for ran in results) else 1)


@click.command("logs", short_help="Show logs of units and files.")
@where_options
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("--tail", type=click.IntRange(0), metavar="LINES", help="Only so many lines from the end.")
@click.option("--since", type=Duration(), help="Only what is younger: 90s, 10m, 2h.")
@click.option("--timestamps", is_flag=True, help="Put its time before each line.")
@click.option("-l", "--selector", default="", metavar="LABELS", help="Of all boxes with these labels.")
@click.argument("boxes", required=False, default="", metavar="[BOX[,BOX...]]", shell_complete=complete_box)
@click.argument("log", required=False, default="", metavar="[LOG]", shell_complete=complete_log)
def logs(
    where: Where,
    follow: bool,
    tail: int | None,
    since: int | None,
    timestamps: bool,
    selector: str,
    boxes: str,
    log: str,
) -> None:
    """Show the log of a unit or a file that a box offers; several boxes at once, each line under its box's name.

    \b
    longline logs box-7 nginx.service -f
    longline logs -l site=lyon /var/log/app.log --since 10m

    LOG is a name that `longline ls BOX` shows, or the path of the file; it can be left out where there is only one.
    """  # noqa: D301 - click takes the character itself
    from tunnel.tool.boxes import chosen_boxes
    from tunnel.tool.many_boxes import LogOptions, PrefixedLogs, copy_log

    if selector:
        if log:
            raise click.UsageError("-l names the boxes: give it and a log, or a box and a log")
        boxes, log = "", boxes
    elif not boxes:
        raise click.UsageError("give a box, or -l LABELS")
    options = LogOptions(follow=follow, tail=tail, since_s=since, timestamps=timestamps)
    api = where.api()
    with told():
        names = chosen_boxes(api, selector) if selector else [name for name in boxes.split(",") if name]
        if len(names) == 1 and not selector:

            def write(data: bytes) -> None:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()

            copy_log(api, names[0], log, options, write)
            return
        errors = PrefixedLogs(api, log, options).run(list(dict.fromkeys(names)))
    if errors:
        raise Failed.of_all([(f"{box}: {error}", error.fault) for box, error in sorted(errors.items())])


@click.command("cp", short_help="Copy files and folders to a box or from it.")
@where_options
@click.option("-q", "--quiet", is_flag=True, help="Show no progress.")
@click.argument("source", shell_complete=complete_copy)
@click.argument("destination", shell_complete=complete_copy)
def cp(where: Where, quiet: bool, source: str, destination: str) -> None:
    """Copy a file or a folder to a box or from it, with its permissions.

    \b
    longline cp site.conf box-7:/etc/nginx/conf.d/
    longline cp box-7:/var/log/app.log .

    It goes through the box's shell ([host] exec = true) and is checked by its SHA-256 where the box can make one. A
    file appears under its name whole or not at all. Links inside folders are left out.
    """  # noqa: D301 - click takes the character itself
    from tunnel.tool.api import ApiFailed
    from tunnel.tool.boxes import unknown_box
    from tunnel.tool.copy_progress import CopyProgress, size_text
    from tunnel.tool.copying import CopyFailed, download, upload
    from tunnel.tool.half_files import CopyStopped
    from tunnel.tool.remote_files import RemoteFiles

    here, there = _BOX_PATH.fullmatch(source), _BOX_PATH.fullmatch(destination)
    on_box = there if here is None else here
    if on_box is None or (here is not None and there is not None):
        raise click.UsageError("one of the two is on a box, as in box-7:/var/log/app.log, and the other is here")
    box = on_box[1]
    api = where.api()
    remote = RemoteFiles(api, box)
    with told(), CopyProgress(Path(source).name or source, hidden=quiet) as progress:
        try:
            if here is None:
                result = upload(remote, Path(source), on_box[2], progress)
            else:
                result = download(remote, on_box[2], Path(destination), progress)
        except ApiFailed as error:
            raise unknown_box(api, box, error) from error
        except (CopyFailed, CopyStopped) as error:
            raise Failed.of(error) from error
    for path in result.skipped:
        click.echo(f"left out: {path!r} is a link or no regular file", err=True)
    if result.files != 1 and not quiet:
        click.echo(f"{result.files} files, {size_text(result.bytes)}", err=True)
