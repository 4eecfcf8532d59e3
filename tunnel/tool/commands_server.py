"""`longline status`, `agents`, `opens`, `events`, `whoami`: what the server says of itself.

They ask through the admin socket on the server, and through the fleet API's listener from elsewhere; the documents are
the same.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunnel.tool.access_options import ADMIN_SOCKET, Command, ServerBad, Where, output_option, told, where_options

if TYPE_CHECKING:
    from tunnel.tool.api import Api


def server_options(command: Command) -> Command:
    """Adds the options of where the server is to a command; it gets `api`, a function that makes the `Api`."""

    @where_options
    @click.option(
        "--socket",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help=f"The server's admin socket, on the server; without a kubeconfig {ADMIN_SOCKET}.",
    )
    @functools.wraps(command)
    def wrapped(*args: Any, where: Where, socket: Path | None, **kwargs: Any) -> Any:
        return command(*args, api=functools.partial(_server, where, socket), **kwargs)

    return wrapped


def _server(where: Where, socket: Path | None) -> Api:
    from tunnel.tool.api import Api
    from tunnel.tool.kubeconfig import kubeconfig_files

    if socket is None and where.kubeconfig is None and where.context is None:
        named = kubeconfig_files(None)
        if not any(path.exists() for path in named) and ADMIN_SOCKET.is_socket():
            socket = ADMIN_SOCKET
    return Api(socket, where.timeout_s) if socket is not None else where.api()


def print_json(document: object) -> None:
    """Prints a document for programs."""
    click.echo(json.dumps(document, indent=2))


@click.command(short_help="Say how the server fares.")
@server_options
@output_option("text", "json")
def status(api: Any, output: str) -> None:
    """Say how the server fares, and what to type about it.

    The exit code is 0 for good, 1 for a warning, 2 for bad or when the server does not answer.
    """
    from tunnel.tool.admin import PREFIX, VERDICTS, status_text
    from tunnel.tool.answers import STATUS

    with told(ServerBad):
        document = api().get(PREFIX + "status", STATUS)
    if output == "json":
        print_json(document)
    else:
        click.echo(status_text(document))
    sys.exit(VERDICTS.get(document.get("verdict"), ServerBad.exit_code))


@click.command(short_help="List the agents, also those that are away.")
@server_options
@output_option("table", "json")
@click.argument("name", required=False)
def agents(api: Any, output: str, name: str | None) -> None:
    """List the agents that joined, whatever became of them; with NAME, all about one."""
    from urllib.parse import quote

    from tunnel.tool.admin import PREFIX, agent_text, agents_text, unknown_agent
    from tunnel.tool.answers import AGENT, AGENTS
    from tunnel.tool.api import ApiFailed

    with told():
        server = api()
        try:
            path = f"agents/{quote(name, safe='')}" if name else "agents"
            document = server.get(PREFIX + path, AGENT if name else AGENTS)
        except ApiFailed as error:
            raise (unknown_agent(server, name, error) if name else error) from error
    if output == "json":
        print_json(document)
    else:
        click.echo(agent_text(document) if name else agents_text(document["agents"]))


@click.group(invoke_without_command=True, short_help="List the connections that run now, or end one.")
@server_options
@output_option("table", "json")
@click.option("-w", "--watch", is_flag=True, help="Go on with a line for each change; with -o json, a document each.")
@click.pass_context
def opens(ctx: click.Context, api: Any, output: str, watch: bool) -> None:
    """List the connections that run now. `longline opens kill ID` ends one."""
    from tunnel.tool.admin import OPENS_HEAD, PREFIX, documents, open_change_text, open_row
    from tunnel.tool.answers import OPEN_CHANGE, OPENS
    from tunnel.tool.tables import table

    ctx.obj = api
    if ctx.invoked_subcommand is not None:
        return
    with told():
        if watch:
            for line in documents(api(), "opens?watch=1", OPEN_CHANGE):
                click.echo(json.dumps(line) if output == "json" else open_change_text(line))
            return
        document = api().get(PREFIX + "opens", OPENS)
    if output == "json":
        print_json(document)
    elif document["opens"]:
        click.echo(table(OPENS_HEAD, map(open_row, document["opens"])))
    else:
        click.echo("nothing runs now", err=True)


@opens.command("kill")
@server_options
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@click.pass_context
def kill(ctx: click.Context, api: Any, ids: tuple[str, ...]) -> None:
    """End connections at once, with a reset on both sides."""
    from urllib.parse import quote

    from tunnel.tool.admin import PREFIX

    with told():
        # What leads to the server may stand before `kill` or behind it.
        behind = any(ctx.params.get(name) for name in ("socket", "kubeconfig", "context"))
        server = api() if behind else ctx.obj()
        for one in ids:
            server.ask("DELETE", f"{PREFIX}opens/{quote(one, safe='')}")
            click.echo(f"{one} is ended")


@click.command(short_help="Tell what happened.")
@server_options
@output_option("text", "json")
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens; with -o json, a document each.")
def events(api: Any, output: str, follow: bool) -> None:
    """Tell what happened: boxes that joined, went away or came back, refusals, configurations, certificates."""
    from tunnel.tool.admin import PREFIX, documents, event_text
    from tunnel.tool.answers import EVENT, EVENTS

    with told():
        if follow:
            for event in documents(api(), "events?follow=1", EVENT):
                click.echo(json.dumps(event) if output == "json" else event_text(event))
            return
        document = api().get(PREFIX + "events", EVENTS)
    if output == "json":
        print_json(document)
    else:
        for event in document["events"]:
            click.echo(event_text(event))


@click.command()
@server_options
@output_option("text", "json")
def whoami(api: Any, output: str) -> None:
    """Say whom the server takes you for, and until when."""
    from tunnel.tool.admin import PREFIX, whoami_text
    from tunnel.tool.answers import WHOAMI

    with told():
        document = api().get(PREFIX + "whoami", WHOAMI)
    if output == "json":
        print_json(document)
    else:
        click.echo(whoami_text(document))
