"""The commands of `cloud-server certificate` and `cloud-server authority`."""

from __future__ import annotations

from pathlib import Path

import click

from tunnel.aio.process.command import Failed, config_option


@click.group()
def certificate() -> None:
    """The server's certificate, and all others whose end somebody has to know."""


@certificate.command("renew")
@config_option("cloud-server")
@click.option("--host", "hosts", multiple=True, help="Name or address for the certificate to have, too; may repeat.")
@click.option("--all", "all_of_them", is_flag=True, help="Also when they are not due: the server's key leaked, say.")
def certificate_renew(config: Path, hosts: tuple[str, ...], all_of_them: bool) -> None:
    """Renew the server's certificate and its authority's, if they are due. A running server does so by itself.

    A running server shows a new certificate to new connections, within seconds; those that run go on.
    """
    from cloud_server.setup import SetupFailed, renew_certificates

    try:
        renewed = renew_certificates(config, all_of_them=all_of_them, hosts=hosts)
    except SetupFailed as error:
        raise Failed.of(error) from error
    for path in renewed:
        click.echo(f"renewed {path}")
    if not renewed:
        click.echo("nothing is due")


@certificate.command("show")
@config_option("cloud-server")
def certificate_show(config: Path) -> None:
    """Print what names the server's certificate has, and until when each certificate is good."""
    from datetime import UTC, datetime

    from cloud_server.config import load_server_config
    from cloud_server.expiries import server_names, watched

    loaded = load_server_config(config)
    if names := server_names(loaded):
        click.echo(f"the server's certificate is for {', '.join(names)}")
    now = datetime.now(UTC)
    for one in watched(loaded):
        click.echo(one.told(now))


@click.group()
def authority() -> None:
    """The authority that signs all certificates, and how another takes its place: add, wait, move, wait, drop."""


@authority.command("show")
@config_option("cloud-server")
def authority_show(config: Path) -> None:
    """Print which authority signs, which is trusted beside it, and who is not ready for the next step."""
    from cloud_server.authority import held, line, names, show
    from cloud_server.setup import SetupFailed
    from cloud_server.trust.administration_failed import AdministrationFailed

    try:
        shown = show(config)
    except (SetupFailed, AdministrationFailed) as error:
        raise Failed.of(error) from error
    click.echo(line(shown.signs, "signs"))
    if shown.beside is None or shown.moved is None:
        return
    click.echo(line(shown.beside, "is trusted beside it"))
    joined = shown.agents.joined
    told, signed = shown.moved.not_told, shown.agents.other_certificate
    click.echo(f"{len(told)} of {joined} agents have not got the second one yet{_named(names(told))}")
    click.echo(f"{len(signed)} of {joined} agents hold no certificate of the first one{_named(names(signed))}")
    click.echo(f"{held(shown.agents.users)} {'is' if len(shown.agents.users) == 1 else 'are'} not of the first one")
    if lost := shown.agents.locked_out:
        click.echo(f"cloud-server authority drop would lock out {len(lost)} of {joined} agents")
    else:
        click.echo("cloud-server authority drop would lock out no agent")


@authority.command("add")
@config_option("cloud-server")
def authority_add(config: Path) -> None:
    """Make a second authority, which the server and its agents trust beside the first.

    Agents get it when they renew their certificate, or when they are told to: edge-agent renew.
    """
    from cloud_server.authority import add, line
    from cloud_server.setup import SetupFailed

    try:
        click.echo(line(add(config).certificate, "is trusted beside the first one from now on"))
    except SetupFailed as error:
        raise Failed.of(error) from error


@authority.command("move")
@config_option("cloud-server")
def authority_move(config: Path) -> None:
    """Have the second authority sign all new certificates, the server's at once. Typed again, it moves back."""
    from cloud_server.authority import line, move
    from cloud_server.setup import SetupFailed

    try:
        click.echo(line(move(config).certificate, "signs from now on"))
    except SetupFailed as error:
        raise Failed.of(error) from error


@authority.command("drop")
@config_option("cloud-server")
@click.option(
    "--force",
    is_flag=True,
    help="Also when somebody is locked out by it, and needs a new token or certificate.",
)
def authority_drop(config: Path, force: bool) -> None:
    """Trust the second authority no more, and destroy its key: the old one, after a move; else the new one."""
    from cloud_server.authority import drop, held, line, names
    from cloud_server.setup import SetupFailed
    from cloud_server.trust.administration_failed import AdministrationFailed

    try:
        dropped, left = drop(config, force=force)
    except (SetupFailed, AdministrationFailed) as error:
        raise Failed.of(error) from error
    click.echo(line(dropped, "is not trusted any more"))
    if lost := left.locked_out:
        click.echo(f"locked out until they join anew: {names(lost)}")
    if left.users:
        click.echo(f"good no more: {held(left.users)}")


def _named(agents: str) -> str:
    return f": {agents}" if agents else ""
