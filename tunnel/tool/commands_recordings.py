"""The commands `longline recordings` and `longline play`, which show what was written to terminals of a box."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunnel.aio.process.command import Failed
from tunnel.tool.access_options import Where, output_option, told, where_options
from tunnel.tool.completion import complete_box

if TYPE_CHECKING:
    from tunnel.tool.recordings import Cast


@click.command("recordings", short_help="List what was recorded on a box.")
@where_options
@output_option("table", "json", "name")
@click.argument("box", shell_complete=complete_box)
def recordings(where: Where, output: str, box: str) -> None:
    """List the recordings of a box, the oldest first; `longline play BOX:ID` shows one."""
    import json
    from dataclasses import asdict

    from tunnel.tool.api import ApiFailed
    from tunnel.tool.boxes import unknown_box
    from tunnel.tool.copy_progress import size_text
    from tunnel.tool.recordings import listed
    from tunnel.tool.tables import table

    api = where.api()
    with told():
        try:
            found = listed(api, box)
        except ApiFailed as error:
            raise unknown_box(api, box, error) from error
    if output == "json":
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
    elif output == "name":
        click.echo("".join(f"{box}:{one.id}\n" for one in found), nl=False)
    elif not found:
        click.echo(f"nothing was recorded on {box}", err=True)
    else:
        rows = [(one.id, one.began, f"{one.seconds:.0f}s", size_text(one.bytes), one.title) for one in found]
        click.echo(table(("ID", "BEGAN", "LASTED", "SIZE", "WHO AND WHAT"), rows))


@click.command("play", short_help="Play what was recorded, from a box or a file.")
@where_options
@click.option("--speed", type=click.FloatRange(0.01, 1000), default=1.0, show_default=True, help="Times as fast.")
@click.option("--idle-limit", type=click.FloatRange(0), metavar="SECONDS", help="No pause longer than this.")
@click.option("--dump", is_flag=True, help="Write all of it at once, without any pauses.")
@click.argument("what", metavar="FILE|BOX:ID")
def play(where: Where, speed: float, idle_limit: float | None, dump: bool, what: str) -> None:
    """Play a recording in this terminal: a file, or one that `longline recordings BOX` lists.

    \b
    longline play box-7:20260301T101500Z-5f3a9c01 --idle-limit 1
    longline play session.cast --speed 4

    What is played is what a program wrote to a terminal, for this terminal to obey. Ctrl-C ends it.
    """  # noqa: D301 - click takes the character itself
    from tunnel.tool.playing import Pace, outputs
    from tunnel.tool.playing import play as play_events
    from tunnel.tool.recordings import RecordingUnusable

    def write(text: str) -> None:
        sys.stdout.buffer.write(text.encode("utf-8", "replace"))
        sys.stdout.buffer.flush()

    with told():
        try:
            with _opened(where, what) as cast:
                if dump:
                    for text in outputs(cast.events):
                        write(text)
                else:
                    play_events(cast.events, write, Pace(speed, idle_limit))
        except RecordingUnusable as error:
            raise Failed.of(error) from error


def _opened(where: Where, what: str) -> AbstractContextManager[Cast]:
    from tunnel.tool.recordings import from_box, from_file, place_on_box

    on_box = place_on_box(what)
    # A file of that name is what was meant: nobody has one by chance.
    if on_box is None or Path(what).exists():
        return from_file(Path(what))
    return from_box(where.api(), *on_box)
