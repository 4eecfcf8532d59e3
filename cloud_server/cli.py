"""The `cloud-server` command."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloud_server.cli_certificates import authority, certificate
from cloud_server.cli_parts import administered, read_labels
from cloud_server.cli_users import user
from cloud_server.policy_commands import policy
from tunnel.aio.process.command import (
    Failed,
    check_out,
    command_line,
    config_option,
    deliver,
    explain_command,
    out_option,
)
from tunnel.aio.process.life import Life
from tunnel.aio.process.version import VERSION
from tunnel.core.wire.faults import CERTIFICATE_EXPIRED, NO_SERVER_TO_UPGRADE

if TYPE_CHECKING:
    from cloud_server.trust.administration import Administration, ListedAgent, ListedToken


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="cloud-server")
def cli() -> None:
    """The cloud's end of tunnels to boxes without an inbound path."""


@cli.command()
@click.option("--state", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for everything.")
@click.option("--host", "hosts", required=True, multiple=True, help="Name or address that agents dial; may repeat.")
@click.option(
    "--authority",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the authority, of another account, which signs for the server.",
)
@click.option(
    "--signer",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Socket of cloud-server-signer.service, with --authority.",
)
def init(state: Path, hosts: tuple[str, ...], authority: Path | None, signer: Path | None) -> None:
    """Make a certificate authority, the server's certificate, a configuration and an operator's kubeconfig."""
    from cloud_server.setup import SetupFailed, init_state
    from cloud_server.trust.signing_link import AuthorityPlace

    if (authority is None) != (signer is None):
        raise click.UsageError("--authority and --signer go together")
    place = AuthorityPlace(authority.absolute(), signer.absolute()) if authority and signer else None
    try:
        made = init_state(state.absolute(), hosts, place)
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
@click.option(
    "--authority",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the authority.",
)
@click.option("--user", required=True, help="The account of the server, by name or number.")
@click.option("--trust-domain", default="longline", show_default=True, help="As [tunnel] trust_domain of the server.")
def signer(authority: Path, user: str, trust_domain: str) -> None:
    """Sign for a server that runs as another account. A service manager starts this and hands over a unix socket."""
    import os
    import pwd

    from cloud_server.trust.signing_service import ServiceFailed, serve

    try:
        uid = int(user) if user.isdecimal() else pwd.getpwnam(user).pw_uid
    except KeyError:
        raise click.UsageError(f"--user: there is no account {user[:80]!r}") from None
    try:
        serve(authority.absolute(), trust_domain, uid, os.environ)
    except ServiceFailed as error:
        raise Failed.of(error) from error


@cli.command()
@config_option("cloud-server")
def run(config: Path) -> None:
    """Run in the foreground, as the service does."""
    from cloud_server.start import start

    sys.exit(start(config))


@cli.command()
@config_option("cloud-server")
def check(config: Path) -> None:
    """Check a configuration without running it, by what a start would do on this machine.

    What a server does not start without is a failure; a part that would be down is a warning. Says how long each
    certificate is good, too: one that has expired, and that nothing renews, is a failure.
    """
    from datetime import UTC, datetime

    from cloud_server.config import load_server_config, policy_file_of
    from cloud_server.expiries import operators_login, watched
    from cloud_server.outlook import outlook, refusals
    from cloud_server.rights.policy_file import load_policy_if_any
    from tunnel.aio.identity.validity import check as check_certificates

    loaded = load_server_config(config)
    for warning in outlook(loaded):
        click.echo(f"{config}: {warning} (it would be down until then)", err=True)
    if load_policy_if_any(policy_file_of(loaded)) is None:
        text = f"there is no policy {policy_file_of(loaded)}: users could do nothing"
        click.echo(f"{config}: {text}; cloud-server policy init --admin NAME makes one", err=True)
    found = [*watched(loaded), operators_login(loaded)]
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


@cli.group()
def token() -> None:
    """Tokens: to make those that boxes join with, and to list and take away these and users'."""


@token.command("create")
@config_option("cloud-server")
@click.option("--agent", metavar="NAME", help="Let one box join, as NAME.")
@click.option("--agents", metavar="PATTERN", help="Let boxes join that choose names like PATTERN, such as 'lyon-*'.")
@click.option("--count", type=click.IntRange(min=1), help="How many of them, with --agents.")
@click.option(
    "--kubernetes",
    is_flag=True,
    help="They are nodes of the cluster of [kubernetes], each of which joins as itself; with --agents '*', say.",
)
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label for each box; may repeat.")
@click.option("--expires", type=Life(), default="24h", show_default=True, help="After so long it is worth nothing.")
@out_option("it")
def token_create(
    config: Path,
    agent: str | None,
    agents: str | None,
    count: int | None,
    kubernetes: bool,
    labels: tuple[str, ...],
    expires: timedelta,
    out: Path | None,
    force: bool,
) -> None:
    """Make a token for boxes to join with, and print it; nothing keeps its text."""
    from cloud_server.issuing import create_join_token
    from cloud_server.trust.administration_failed import AdministrationFailed

    if (agent is None) == (agents is None):
        raise click.UsageError("give one of --agent and --agents")
    if kubernetes and (agents is None or count is not None):
        raise click.UsageError("--kubernetes goes with --agents alone: the cluster says how many nodes there are")
    if not kubernetes and (agents is None) != (count is None):
        raise click.UsageError("--agents and --count go together: how many boxes may join?")
    if agents is not None and "*" not in agents:
        raise click.UsageError("--agents is a pattern with a * in it; for one box use --agent")
    given = {name: str(value) for name, value in read_labels(labels).items()}
    check_out(out, force=force)
    try:
        text = create_join_token(config, agent or str(agents), expires, count or 1, given, kubernetes=kubernetes)
    except AdministrationFailed as error:
        raise Failed.of(error) from error
    deliver(text, out, force=force)


@token.command("list")
@config_option("cloud-server")
def token_list(config: Path) -> None:
    """Print every user's token, and every token to join with: never its text, which nothing keeps.

    With them certificates that were made for users, by their serials; those of a login go with it.
    """
    from datetime import UTC, datetime

    from cloud_server.lists import token_line

    async def listed(records: Administration) -> Sequence[ListedToken]:
        return records.tokens()

    now = datetime.now(UTC)
    for one in administered(config, listed):
        click.echo(token_line(one, now))


@token.command("revoke")
@config_option("cloud-server")
@click.option("--user", default="", metavar="NAME", help="All tokens of this user.")
@click.argument("token_id", metavar="[ID]", default="")
def token_revoke(config: Path, user: str, token_id: str) -> None:
    """Take a token away by its ID, or a certificate by its serial, as `token list` and `user show` have them; a running
    server knows at once.
    """
    if bool(user) == bool(token_id):
        raise click.UsageError("give one of ID and --user")
    gone = administered(config, lambda records: records.revoke_tokens(token_id=token_id, user=user))
    count, what = (gone.certificates, "certificate") if gone.certificates else (gone.tokens, "token")
    click.echo(f"{count} {what}{'' if count == 1 else 's'} revoked")


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
    for one in administered(config, listed):
        click.echo(agent_line(one, now))


@agent.command("label")
@config_option("cloud-server")
@click.argument("name")
@click.argument("labels", nargs=-1, required=True, metavar="KEY=VALUE|KEY-...")
def agent_label(config: Path, name: str, labels: tuple[str, ...]) -> None:
    """Give an agent labels, which policies and credentials go by; KEY- takes one away."""
    given = read_labels(labels, removal=True)
    kept = administered(config, lambda records: records.label_agent(name, given))
    click.echo(" ".join([name, *(f"{key}={value}" for key, value in sorted(kept.items()))]))


@agent.command("revoke")
@config_option("cloud-server")
@click.option("--reason", default="", metavar="TEXT", help="Shown in lists, and told to the box.")
@click.argument("name")
def agent_revoke(config: Path, name: str, reason: str) -> None:
    """Take an agent's name away, and the tokens that are out for it; a running server ends its session at once."""
    administered(config, lambda records: records.revoke_agent(name, reason))
    click.echo(f"{name} is revoked")


@agent.command("forget")
@config_option("cloud-server")
@click.argument("name")
def agent_forget(config: Path, name: str) -> None:
    """Forget an agent: it leaves all lists. With an authority of your own, its name is free for the next key."""
    administered(config, lambda records: records.forget_agent(name))
    click.echo(f"{name} is forgotten")


cli.add_command(user)
cli.add_command(explain_command)
cli.add_command(policy)
cli.add_command(certificate)
cli.add_command(authority)


def main() -> None:
    """Runs the `cloud-server` command line."""
    command_line(cli)
