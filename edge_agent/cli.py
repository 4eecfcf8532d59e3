"""The `edge-agent` command."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import BinaryIO

import click

from tunnel.aio.process.command import (
    VERSION,
    AddressParameter,
    Failed,
    command_line,
    config_option,
    explain_command,
    refuse_password,
)
from tunnel.aio.process.config import ServerAddress
from tunnel.core.wire.faults import CERTIFICATE_EXPIRED

MAX_TOKEN_BYTES = 64 * 1024


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="edge-agent")
def cli() -> None:
    """Connects a box without an inbound path to its cloud server."""


@cli.command()
@click.option("--server", required=True, type=AddressParameter(), help="The cloud server to dial.")
@click.option(
    "--token-file",
    required=True,
    type=click.File("rb", lazy=False),
    help="Token of `cloud-server token create`; - is stdin.",
)
@click.option("--state", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the key.")
@click.option(
    "--proxy",
    metavar="URL",
    help="HTTP proxy, http://HOST:PORT, or none; else that of the environment, as curl finds it.",
)
def join(server: ServerAddress, token_file: BinaryIO, state: Path, proxy: str | None) -> None:
    """Make a key on this box and get a certificate for it."""
    import asyncio

    from tunnel.aio.carriers.native_log import silence_core

    silence_core()  # before anything imports grpc
    from edge_agent.identity.join import JoinFailed
    from edge_agent.identity.join import join as join_cloud
    from tunnel.aio.identity.join_token import JoinToken, TokenUnusable

    refuse_password(proxy)
    try:
        token = JoinToken.decode(token_file.read(MAX_TOKEN_BYTES).decode("ascii", "replace"))
        joined = asyncio.run(join_cloud(server, token, state.absolute(), VERSION, proxy))
    except (TokenUnusable, JoinFailed) as error:
        raise Failed.of(error) from error
    click.echo(f"joined as {joined.agent}")
    if joined.clock_fault is not None:
        click.echo(f"warning: {joined.clock_fault}", err=True)
    if joined.config_is_new:
        click.echo(f"wrote {joined.config}: list there what may be reached, then")
    else:
        through = f" and [cloud] proxy the {joined.proxy}" if joined.proxy else ""
        click.echo(f"kept {joined.config}: see that [cloud] servers names {server}{through}, then")
    click.echo(f"  edge-agent run --config {joined.config}")


@cli.command()
@config_option("edge-agent")
def run(config: Path) -> None:
    """Run in the foreground, as the service does."""
    from tunnel.aio.carriers.native_log import silence_core

    silence_core()  # before anything imports grpc
    from edge_agent.config import load_agent_config
    from edge_agent.daemon import run as run_agent

    sys.exit(run_agent(load_agent_config(config)))


@cli.command()
@config_option("edge-agent")
def check(config: Path) -> None:
    """Check a configuration without running it; what it names and is not there now is a warning.

    Says how long each certificate is good, too: one that has expired is a failure.
    """
    from datetime import UTC, datetime

    from edge_agent.config import load_agent_config
    from edge_agent.identity.expiries import watched
    from edge_agent.outlook import outlook
    from tunnel.aio.identity.validity import check as check_certificates
    from tunnel.aio.sockets.http_proxy import ProxyUnusable, proxy_for

    loaded = load_agent_config(config)
    for warning in outlook(loaded):
        click.echo(f"{config}: {warning}", err=True)
    lines, expired = check_certificates(watched(loaded), datetime.now(UTC))
    faults = [(text, CERTIFICATE_EXPIRED) for text in expired]
    try:
        for server in loaded.cloud.servers:
            if (proxy := proxy_for(server.host, loaded.cloud.proxy, "[cloud] proxy", os.environ)) is not None:
                lines.append(f"{server} is dialled through the {proxy}")
    except ProxyUnusable as error:
        faults.append((error.text, error.fault))
    for line in lines:
        click.echo(line)
    if faults:
        raise Failed.of_all(faults)
    click.echo(f"{config}: good")


cli.add_command(explain_command)


def main() -> None:
    """Entry point."""
    command_line(cli)
