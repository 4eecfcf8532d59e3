"""The `edge-agent` command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

import click

from tunnel.aio.command import VERSION, Failed, command_line, config_option


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="edge-agent")
def cli() -> None:
    """Connects a box without an inbound path to its cloud server."""


@cli.command()
@click.option("--server", required=True, metavar="HOST:PORT", help="The cloud server to dial.")
@click.option(
    "--token-file",
    required=True,
    type=click.File("r", lazy=False),
    help="Token of `cloud-server token create`; - is stdin.",
)
@click.option("--state", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the key.")
def join(server: str, token_file: TextIO, state: Path) -> None:
    """Make a key on this box and get a certificate for it."""
    import asyncio

    from tunnel.aio.native_log import silence_core

    silence_core()  # before anything imports grpc
    from edge_agent.join import JoinFailed
    from edge_agent.join import join as join_cloud
    from tunnel.aio.join_token import JoinToken, TokenUnusable

    try:
        token = JoinToken.decode(token_file.read())
        joined = asyncio.run(join_cloud(server, token, state.absolute(), VERSION))
    except (TokenUnusable, JoinFailed, UnicodeDecodeError) as error:
        raise Failed(str(error)) from error
    click.echo(f"joined as {joined.agent}")
    if joined.config_is_new:
        click.echo(f"wrote {joined.config}: list there what may be reached, then")
    else:
        click.echo(f"kept {joined.config}: see that [cloud] servers names {server}, then")
    click.echo(f"  edge-agent run --config {joined.config}")


@cli.command()
@config_option
def run(config: Path) -> None:
    """Run in the foreground, as the service does."""
    from tunnel.aio.native_log import silence_core

    silence_core()  # before anything imports grpc
    from edge_agent.config import load_agent_config
    from edge_agent.daemon import run as run_agent

    sys.exit(run_agent(load_agent_config(config)))


@cli.command()
@config_option
def check(config: Path) -> None:
    """Check a configuration without running it."""
    from edge_agent.config import load_agent_config

    load_agent_config(config)
    click.echo(f"{config}: good")


def main() -> None:
    """Entry point."""
    command_line(cli)
