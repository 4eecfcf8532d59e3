"""The `cloud-server` command."""

from __future__ import annotations

import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from tunnel.aio.process.command import (
    EXIT_FAILED,
    VERSION,
    Failed,
    check_out,
    command_line,
    config_option,
    deliver,
    explain_command,
    out_option,
    told,
)
from tunnel.core.wire.faults import CERTIFICATE_EXPIRED, NO_SERVER_TO_UPGRADE, PACKAGE_MISSING

if TYPE_CHECKING:
    from cloud_server.trust.administration import Administration, ListedAgent, ListedToken

T = TypeVar("T")

MAX_LIFE = timedelta(days=365)
SERVER_MODULES = ("cryptography", "h2", "lightkube", "prometheus_client", "yaml")
"""The modules of the extra `server`, which a plain installation, as boxes have it, lacks."""
INSTALL = "pip install 'longline[server]'"
_LIFE = re.compile(r"([1-9][0-9]{0,7})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Life(click.ParamType[timedelta]):
    """A time such as 30m, 24h or 7d."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Returns the time that a value of the command line stands for; fails with a usage error when it is none, or is
        above `MAX_LIFE`.
        """
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
    click.echo(
        f"made {made.config} and {made.kubeconfig}"
        if made.config_is_new
        else f"made {made.kubeconfig}; kept {made.config} as it was"
    )
    click.echo(f"""\
  start:         cloud-server run --config {made.config}
  add a box:     cloud-server token create --config {made.config} --agent NAME --out token
  on the box:    edge-agent join --server {made.server} --token-file token --state DIR
  look:          kubectl --kubeconfig {made.kubeconfig} get nodes""")


@cli.command()
@config_option("cloud-server")
def run(config: Path) -> None:
    """Run in the foreground, as the service does."""
    from cloud_server.config import load_server_config
    from tunnel.aio.carriers.native_log import enable_handshake_trace

    enable_handshake_trace()  # before anything imports grpc
    from cloud_server.daemon import run as run_server

    sys.exit(run_server(config, load_server_config(config)))


@cli.command()
@config_option("cloud-server")
def check(config: Path) -> None:
    """Check a configuration without running it, by what a start would do on this machine.

    What a server does not start without is a failure; a part that would be down is a warning. Says how long each
    certificate is good, too: one that has expired, and that nothing renews, is a failure.
    """
    from datetime import UTC, datetime

    from cloud_server.config import load_server_config, state_of
    from cloud_server.expiries import operators_certificate, watched
    from cloud_server.outlook import outlook, refusals
    from tunnel.aio.identity.validity import check as check_certificates

    loaded = load_server_config(config)
    for warning in outlook(loaded):
        click.echo(f"{config}: {warning} (it would be down until then)", err=True)
    found = [*watched(loaded), operators_certificate(state_of(loaded) / "admin.kubeconfig")]
    lines, faults = check_certificates([one for one in found if one is not None], datetime.now(UTC))
    for line in lines:
        click.echo(line)
    failed = [
        *((error.text, error.fault) for error in refusals(loaded)),
        *((text, CERTIFICATE_EXPIRED) for text in faults),
    ]
    if failed:
        raise Failed.of_all(failed)
    click.echo(f"{config}: good")


@cli.command()
@config_option("cloud-server")
def reload(config: Path) -> None:
    """Have the running server read its configuration anew, and say what has changed. It follows the file anyway.

    When the file cannot be used, the server goes on with what it has, and this fails with the reason.
    """
    from tunnel.aio.operate.reload_command import ask_to_reload

    ask_to_reload(config, NO_SERVER_TO_UPGRADE)


@cli.command()
@config_option("cloud-server")
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
@config_option("cloud-server")
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
@config_option("cloud-server")
@click.option("--agent", metavar="NAME", help="Let a box join once, as NAME.")
@click.option("--user", metavar="NAME", help="Let a client act as user NAME, as bearer token or proxy password.")
@click.option("--expires", type=Life(), help="After so long: 24h for a box unless given, never for a user.")
@out_option("it")
def token_create(
    config: Path, agent: str | None, user: str | None, expires: timedelta | None, out: Path | None, force: bool
) -> None:
    """Make a new token, and print it; nothing keeps its text."""
    from cloud_server.issuing import create_join_token, create_user_token
    from cloud_server.trust.administration import AdministrationFailed
    from cloud_server.trust.tokens import DEFAULT_LIFE

    if (agent is None) == (user is None):
        raise click.UsageError("give one of --agent and --user")
    check_out(out, force=force)
    try:
        if agent is not None:
            text = create_join_token(config, agent, expires or DEFAULT_LIFE)
        else:
            text = create_user_token(config, str(user), expires)
    except AdministrationFailed as error:
        raise Failed.of(error) from error
    deliver(text, out, force=force)


@token.command("list")
@config_option("cloud-server")
def token_list(config: Path) -> None:
    """Print every user's token, and every token to join with: never its text, which nothing keeps."""
    from datetime import UTC, datetime

    from cloud_server.lists import token_line

    async def listed(records: Administration) -> Sequence[ListedToken]:
        return records.tokens()

    now = datetime.now(UTC)
    for one in _administer(config, listed):
        click.echo(token_line(one, now))


@token.command("revoke")
@config_option("cloud-server")
@click.option("--user", default="", metavar="NAME", help="All tokens of this user.")
@click.argument("token_id", metavar="[ID]", default="")
def token_revoke(config: Path, user: str, token_id: str) -> None:
    """Take a token away by its ID, as `token list` shows it; a running server knows at once."""
    if bool(user) == bool(token_id):
        raise click.UsageError("give one of ID and --user")
    count = _administer(config, lambda records: records.revoke_tokens(token_id=token_id, user=user))
    click.echo(f"{count} token{'' if count == 1 else 's'} revoked")


@cli.command()
@config_option("cloud-server")
@click.option("--user", required=True, metavar="NAME", help="Name that the user's acts are recorded under.")
@click.option("--cluster", metavar="NAME", help="For the API server of a site, a [[cluster]] of the configuration.")
@out_option("it")
def kubeconfig(config: Path, user: str, cluster: str | None, out: Path | None, force: bool) -> None:
    """Print a kubeconfig for the fleet API with a new certificate for a user, or for a site's own API server."""
    from cloud_server.issuing import cluster_kubeconfig, user_kubeconfig
    from cloud_server.setup import SetupFailed
    from cloud_server.trust.administration import AdministrationFailed

    check_out(out, force=force)
    try:
        made = user_kubeconfig(config, user) if cluster is None else cluster_kubeconfig(config, user, cluster)
    except (SetupFailed, AdministrationFailed) as error:
        raise Failed.of(error) from error
    deliver(made, out, force=force)


@cli.group()
def agent() -> None:
    """The agents that joined."""


@agent.command("list")
@config_option("cloud-server")
def agent_list(config: Path) -> None:
    """Print every agent that joined: until when its certificate is good, and when it was seen last."""
    from datetime import UTC, datetime

    from cloud_server.lists import agent_line

    async def listed(records: Administration) -> Sequence[ListedAgent]:
        return records.agents()

    now = datetime.now(UTC)
    for one in _administer(config, listed):
        click.echo(agent_line(one, now))


@agent.command("revoke")
@config_option("cloud-server")
@click.option("--reason", default="", metavar="TEXT", help="Shown in lists, and told to the box.")
@click.argument("name")
def agent_revoke(config: Path, name: str, reason: str) -> None:
    """Take an agent's name away; a running server ends its session at once."""
    _administer(config, lambda records: records.revoke_agent(name, reason))
    click.echo(f"{name} is revoked")


@agent.command("forget")
@config_option("cloud-server")
@click.argument("name")
def agent_forget(config: Path, name: str) -> None:
    """Forget an agent: it leaves all lists. With an authority of your own, its name is free for the next key."""
    _administer(config, lambda records: records.forget_agent(name))
    click.echo(f"{name} is forgotten")


def _administer(config: Path, work: Callable[[Administration], Awaitable[T]]) -> T:
    from cloud_server.administer import administer
    from cloud_server.config import load_server_config
    from cloud_server.trust.administration import AdministrationFailed

    try:
        return administer(load_server_config(config), work)
    except AdministrationFailed as error:
        raise Failed.of(error) from error


cli.add_command(explain_command)


def main() -> None:
    """Runs the `cloud-server` command of this process's command line, and exits with its code. Says what to install
    when a module of the extra `server` is missing.
    """
    missing = [name for name in SERVER_MODULES if find_spec(name) is None]
    if missing:
        text = f"cloud-server needs more than is installed ({', '.join(missing)}): {INSTALL}"
        click.echo(told(text, PACKAGE_MISSING), err=True)
        sys.exit(EXIT_FAILED)
    command_line(cli)
