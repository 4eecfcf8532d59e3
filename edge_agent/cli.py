"""The `edge-agent` command: what it takes and prints. The work is done in the modules that its subcommands import."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import BinaryIO

import click

from edge_agent.cli_autonomy import autonomy
from edge_agent.cli_parts import EXIT_BAD, asked, status_of
from tunnel.aio.process.command import (
    AddressParameter,
    Failed,
    command_line,
    config_option,
    explain_command,
    refuse_password,
)
from tunnel.aio.process.config import ServerAddress
from tunnel.aio.process.version import VERSION
from tunnel.core.wire.faults import CERTIFICATE_EXPIRED, NO_LINK

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
@click.option("--name", default="", metavar="NAME", help="Of this box, with a token for several boxes.")
@click.option(
    "--kubernetes-token-file",
    type=click.File("rb", lazy=False),
    help="Token of the pod's ServiceAccount, with a token for nodes of a cluster.",
)
@click.option(
    "--proxy",
    metavar="URL",
    help="HTTP proxy, http://HOST:PORT, or none; else that of the environment, as curl finds it.",
)
def join(
    server: ServerAddress,
    token_file: BinaryIO,
    state: Path,
    name: str,
    kubernetes_token_file: BinaryIO | None,
    proxy: str | None,
) -> None:
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
        shown = kubernetes_token_file.read(MAX_TOKEN_BYTES) if kubernetes_token_file is not None else b""
        node = shown.decode("ascii", "replace").strip()
        joined = asyncio.run(join_cloud(server, token, state.absolute(), VERSION, proxy, name, node))
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
    from edge_agent.start import start

    sys.exit(start(config))


@cli.command()
@config_option("edge-agent")
def check(config: Path) -> None:
    """Check a configuration without running it; what it names and is not there now is a warning.

    Says how long each certificate is good, too: one that has expired is a failure.
    """
    from datetime import UTC, datetime

    from edge_agent.config import kubelet_files, load_agent_config, node_files
    from edge_agent.identity.expiries import watched
    from edge_agent.identity.identity import Identity, IdentityUnusable
    from edge_agent.outlook import outlook
    from tunnel.aio.identity.validity import check as check_certificates
    from tunnel.aio.process.config import state_folder
    from tunnel.aio.sockets.http_proxy import ProxyUnusable, proxy_for

    loaded = load_agent_config(config)
    for warning in outlook(loaded):
        click.echo(f"{config}: {warning}", err=True)
    state = state_folder(config)
    lines, expired = check_certificates(watched(state, kubelet_files(loaded), node_files(loaded)), datetime.now(UTC))
    faults = [(text, CERTIFICATE_EXPIRED) for text in expired]
    try:
        Identity(state).name()  # without one, the agent does not start
    except IdentityUnusable as error:
        faults.append((error.text, error.fault))
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


@cli.command()
@config_option("edge-agent")
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
def status(config: Path, output: str) -> None:
    """Tell how the running agent stands. The exit code is 0 for good, 1 for a warning, 2 for no link or no agent."""
    import json

    from edge_agent.operate.status_text import EXIT_CODES, lines

    answer = status_of(config)
    click.echo(json.dumps(answer, indent=2) if output == "json" else "\n".join(lines(answer)))
    sys.exit(EXIT_CODES.get(answer["verdict"], EXIT_BAD))


@cli.command()
@config_option("edge-agent")
def reload(config: Path) -> None:
    """Have the running agent read its configuration anew, and tell what has changed. It follows the file anyway."""
    from tunnel.aio.operate.reload_command import ask_to_reload

    ask_to_reload(config, NO_LINK)


@cli.command()
@config_option("edge-agent")
def renew(config: Path) -> None:
    """Have the running agent renew its certificate now; it does so by itself at two thirds of its life.

    With the certificate come the authorities that the box is to trust: for a change of authority that cannot wait.
    """
    answer = asked(config, "renew")
    click.echo(f"{answer['agent']} has a fresh certificate")


@cli.command("rotate-key")
@config_option("edge-agent")
def rotate_key(config: Path) -> None:
    """Have the running agent replace the box's key by a new one; its connections go on.

    Until the server has confirmed it, the box keeps both. When the answer is lost, the agent asks again by itself.
    """
    answer = asked(config, "rotate-key")
    click.echo(f"{answer['agent']} has a new key, and a certificate for it")


@cli.command()
@click.option("--account", "accounts", required=True, multiple=True, help="Commands may run as this one; may repeat.")
@click.option("--user", required=True, help="The account of the agent, by name or number.")
def commands(accounts: tuple[str, ...], user: str) -> None:
    """Run commands as other accounts for an agent of its own. A service manager starts this and hands over a socket."""
    import pwd

    from edge_agent.hostkubelet.command_service import ServiceFailed, serve

    try:
        uid = int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
    except KeyError:
        raise click.UsageError(f"--user: there is no account {user[:80]!r}") from None
    try:
        serve(accounts, uid, os.environ)
    except ServiceFailed as error:
        raise Failed.of(error) from error


cli.add_command(autonomy)
cli.add_command(explain_command)


def main() -> None:
    """Runs the `edge-agent` command line."""
    command_line(cli)
