"""The `cloud-server` command."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path

import click

from tunnel.aio.process.command import EXIT_FAILED, VERSION, Failed, command_line, config_option, explain_command, told
from tunnel.core.wire.faults import AGENT_NOT_JOINED, CERTIFICATE_EXPIRED, PACKAGE_MISSING, STATE_NOT_WRITABLE

MAX_LIFE = timedelta(days=365)
SERVER_MODULES = ("cryptography", "h2", "lightkube", "prometheus_client", "yaml")
"""Of the extra `server`: a plain installation is that of a box."""
INSTALL = "pip install 'longline[server]'"
_LIFE = re.compile(r"([1-9][0-9]{0,7})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Life(click.ParamType[timedelta]):
    """A time such as 30m, 24h or 7d."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Parse a value of the command line."""
        match = _LIFE.fullmatch(str(value))
        life = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match is not None else None
        if life is None or life > MAX_LIFE:
            self.fail(f"{value} is not a time such as 30m, 24h or 7d, up to {MAX_LIFE.days}d", param, ctx)
        return life


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="cloud-server")
def cli() -> None:
    """The cloud's end of tunnels to boxes without an inbound path."""


@cli.command()
@click.option("--state", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for everything.")
@click.option("--host", "hosts", required=True, multiple=True, help="Name or address that agents dial; may repeat.")
def init(state: Path, hosts: tuple[str, ...]) -> None:
    """Make a certificate authority, the server's certificate, a configuration and an operator's kubeconfig."""
    from cloud_server.setup import SetupFailed, init_state

    try:
        made = init_state(state.absolute(), hosts)
    except SetupFailed as error:
        raise Failed.of(error) from error
    click.echo(f"""\
made {made.config} and {made.kubeconfig}
  start:         cloud-server run --config {made.config}
  add a box:     cloud-server token create --config {made.config} --agent NAME > token
  on the box:    edge-agent join --server {made.server} --token-file token --state DIR
  look:          kubectl --kubeconfig {made.kubeconfig} get nodes""")


@cli.command()
@config_option
def run(config: Path) -> None:
    """Run in the foreground, as the service does."""
    from cloud_server.config import load_server_config
    from tunnel.aio.carriers.native_log import enable_handshake_trace

    enable_handshake_trace()  # before anything imports grpc
    from cloud_server.daemon import run as run_server

    sys.exit(run_server(load_server_config(config)))


@cli.command()
@config_option
def check(config: Path) -> None:
    """Check a configuration without running it; what it names and is not there now is a warning.

    Says how long each certificate is good, too: one that has expired, and that nothing renews, is a failure.
    """
    from datetime import UTC, datetime

    from cloud_server.config import load_server_config, state_of
    from cloud_server.outlook import outlook
    from cloud_server.trust.expiries import operators_certificate, watched
    from tunnel.aio.identity.validity import check as check_certificates

    loaded = load_server_config(config)
    for warning in outlook(loaded):
        click.echo(f"{config}: {warning} (it would be down until then)", err=True)
    found = [*watched(loaded), operators_certificate(state_of(loaded) / "admin.kubeconfig")]
    lines, faults = check_certificates([one for one in found if one is not None], datetime.now(UTC))
    for line in lines:
        click.echo(line)
    if faults:
        raise Failed.of_all([(text, CERTIFICATE_EXPIRED) for text in faults])
    click.echo(f"{config}: good")


@cli.command()
@config_option
def upgrade(config: Path) -> None:
    """Replace the running server by a new process, with the program and the configuration as they are now.

    Clients that connect meanwhile wait and are not refused; connections that run go on for up to `drain_s`. When the
    new process does not become ready, the running one goes on as if nothing had been asked.
    """
    from cloud_server.config import load_server_config, state_of
    from cloud_server.upgrade import UpgradeFailed, ask_for_upgrade

    try:
        successor = ask_for_upgrade(state_of(load_server_config(config)))
    except UpgradeFailed as error:
        raise Failed.of(error) from error
    click.echo(f"process {successor} has taken over")


@cli.command()
@config_option
@click.option("--all", "all_of_them", is_flag=True, help="Also when they are not due: the server's key leaked, say.")
def renew(config: Path, all_of_them: bool) -> None:
    """Renew the server's certificate and its authority's, if they are due. A running server does so by itself."""
    from cloud_server.setup import SetupFailed, renew_certificates

    try:
        renewed = renew_certificates(config, all_of_them=all_of_them)
    except SetupFailed as error:
        raise Failed.of(error) from error
    for path in renewed:
        click.echo(f"renewed {path}")
    if not renewed:
        click.echo("nothing is due")


@cli.group()
def token() -> None:
    """Tokens: for boxes to join with, and for users of the CONNECT and fleet front ends."""


@token.command("create")
@config_option
@click.option("--agent", metavar="NAME", help="Let a box join once, as NAME.")
@click.option("--user", metavar="NAME", help="Let a client act as user NAME, as bearer token or proxy password.")
@click.option("--expires", type=Life(), default="24h", show_default=True, help="Of a join token.")
def token_create(config: Path, agent: str | None, user: str | None, expires: timedelta) -> None:
    """Print a new token; nothing keeps its text."""
    from cloud_server.setup import SetupFailed, create_join_token, create_user_token

    if (agent is None) == (user is None):
        raise click.UsageError("give one of --agent and --user")
    try:
        if agent is not None:
            click.echo(create_join_token(config, agent, expires))
        elif user is not None:
            click.echo(create_user_token(config, user))
    except SetupFailed as error:
        raise Failed.of(error) from error


@cli.command()
@config_option
@click.option("--user", required=True, metavar="NAME", help="Name that the user's acts are recorded under.")
@click.option("--cluster", metavar="NAME", help="For the API server of a site, a [[cluster]] of the configuration.")
def kubeconfig(config: Path, user: str, cluster: str | None) -> None:
    """Print a kubeconfig for the fleet API with a new certificate for a user, or for a site's own API server."""
    from cloud_server.setup import SetupFailed, cluster_kubeconfig, user_kubeconfig

    try:
        made = user_kubeconfig(config, user) if cluster is None else cluster_kubeconfig(config, user, cluster)
        click.echo(made, nl=False)
    except SetupFailed as error:
        raise Failed.of(error) from error


@cli.group()
def agent() -> None:
    """The agents that joined."""


@agent.command("list")
@config_option
def agent_list(config: Path) -> None:
    """Print every agent that joined, and until when the certificate is good that it was given last."""
    from datetime import UTC, datetime

    from cloud_server.setup import agent_store
    from tunnel.aio.identity.validity import Standing, date

    store = agent_store(config)
    now = datetime.now(UTC)
    for name in sorted(store.names()):
        record = store.get(name)
        assert record is not None
        words = [name, f"joined {date(record.joined)}"]
        if record.validity is not None:
            over = record.validity.standing(now) is Standing.OVER
            words.append(f"certificate {'expired' if over else 'until'} {date(record.validity.not_after)}")
        click.echo("\t".join(words))


@agent.command("revoke")
@config_option
@click.argument("name")
def agent_revoke(config: Path, name: str) -> None:
    """Take an agent's name away; a running server ends its session within seconds."""
    from cloud_server.setup import agent_store

    if not _changed(agent_store(config).revoke, name):
        raise Failed(f"{name} has not joined", AGENT_NOT_JOINED)
    click.echo(f"{name} is revoked")


@agent.command("forget")
@config_option
@click.argument("name")
def agent_forget(config: Path, name: str) -> None:
    """Forget an agent: it leaves all lists. With an authority of your own, its name is free for the next key."""
    from cloud_server.setup import agent_store

    if not _changed(agent_store(config).forget, name):
        raise Failed(f"{name} has not joined", AGENT_NOT_JOINED)
    click.echo(f"{name} is forgotten")


def _changed(change: Callable[[str], bool], name: str) -> bool:
    try:
        return change(name)
    except OSError as error:
        raise Failed(f"the state folder cannot be written: {error.strerror}", STATE_NOT_WRITABLE) from error


cli.add_command(explain_command)


def main() -> None:
    """Entry point."""
    missing = [name for name in SERVER_MODULES if find_spec(name) is None]
    if missing:
        text = f"cloud-server needs more than is installed ({', '.join(missing)}): {INSTALL}"
        click.echo(told(text, PACKAGE_MISSING), err=True)
        sys.exit(EXIT_FAILED)
    command_line(cli)
