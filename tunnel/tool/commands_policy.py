"""The commands of `longline policy`, which ask what the policy of a running server says."""

from __future__ import annotations

import json
from typing import Any

import click

from tunnel.tool.access_options import output_option, told
from tunnel.tool.commands_server import server_options


@click.group(short_help="Ask what the server's policy allows.")
def policy() -> None:
    """Ask what the policy of the running server allows."""


@policy.command("explain")
@server_options
@output_option("text", "json")
@click.option("--user", default="", metavar="NAME", help="Who would ask.")
@click.option("--group", "groups", multiple=True, metavar="NAME", help="A group of theirs; may repeat.")
@click.option("--agent", default="", metavar="NAME", help="At which box.")
@click.option("--target", default="", metavar="HOST:PORT", help="A target to connect to, or service:NAME.")
@click.option("--verb", default="", metavar="VERB", help="Another verb, such as exec, logs or administer.")
@click.option("--unit", default="", metavar="NAME", help="The container of logs and exec, such as host.")
@click.option("--as", "whom", default="", metavar="WHOM", help="Of impersonate: user:NAME or group:NAME.")
@click.option("--frontend", default="", metavar="NAME", help="The way in: connect, else fleet, unless given.")
def explain(api: Any, output: str, groups: tuple[str, ...], **words: str) -> None:
    """Say whether somebody may do something, and which rule decides."""
    from tunnel.aio.operate.explained import explanation_text
    from tunnel.tool.admin import PREFIX
    from tunnel.tool.answers import EXPLANATION

    wanted = {key: value for key, value in words.items() if value} | ({"groups": list(groups)} if groups else {})
    with told():
        shown = api().ask("POST", PREFIX + "policy/explain", wanted, EXPLANATION)
    click.echo(json.dumps(shown, indent=2) if output == "json" else explanation_text(shown))
