"""The commands of `cloud-server user`: who may log in, with what, and until when."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloud_server.cli_parts import administered
from tunnel.aio.process.command import Failed, check_out, config_option, deliver, out_option
from tunnel.aio.process.life import Life

if TYPE_CHECKING:
    from cloud_server.trust.administration import Administration
    from cloud_server.trust.user_administration import ListedUser

_for_days = click.option("--expires", type=Life(), default="90d", show_default=True, help="After so long it ends.")


@click.group()
def user() -> None:
    """The people and programs that may log in."""


@user.command("add")
@config_option("cloud-server")
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="That policies name; may repeat.")
@click.argument("name")
def user_add(config: Path, groups: tuple[str, ...], name: str) -> None:
    """Take a user in, or give one that is there these groups and no others.

    One that was revoked is a user again; what they had before stays worthless.
    """
    from cloud_server.issuing import asked_by

    made = administered(config, lambda records: records.users.add(name, groups, asked_by()))
    told = f", in {', '.join(made.groups)}" if made.groups else ""
    click.echo(f"{name} is a user{told}; next: cloud-server user kubeconfig {name}")


@user.command("list")
@config_option("cloud-server")
def user_list(config: Path) -> None:
    """Print every user: the roles that the policy file gives, what they log in with, its end, and its last use."""
    from cloud_server.lists import user_line

    async def listed(records: Administration) -> Sequence[ListedUser]:
        return records.users.all()

    users, roles_of = administered(config, listed), _roles(config)
    for one in users:
        click.echo(user_line(one, roles_of(one)))


@user.command("show")
@config_option("cloud-server")
@click.argument("name")
def user_show(config: Path, name: str) -> None:
    """Print one user with the roles that the policy file gives, and a line for each credential that is good now."""
    from cloud_server.lists import credential_line, user_line

    async def found(records: Administration) -> ListedUser:
        return records.users.one(name)

    one = administered(config, found)
    click.echo(user_line(one, _roles(config)(one)))
    for credential in one.credentials:
        click.echo(f"  {credential_line(credential)}")


@user.command("revoke")
@config_option("cloud-server")
@click.option("--reason", default="", metavar="TEXT", help="Shown in lists, and told to the user.")
@click.argument("name")
def user_revoke(config: Path, name: str, reason: str) -> None:
    """Block a user, whatever they show; a running server ends what they do."""
    administered(config, lambda records: records.users.revoke(name, reason))
    click.echo(f"{name} is revoked")


@user.command("kubeconfig")
@config_option("cloud-server")
@click.option("--cluster", metavar="SITE", help="For the API server of a site, a [[cluster]] of the configuration.")
@click.option("--token", "bearer", is_flag=True, help="With a token inside: for a machine without longline.")
@_for_days
@out_option("it")
@click.argument("name")
def user_kubeconfig(
    config: Path, cluster: str | None, bearer: bool, expires: timedelta, out: Path | None, force: bool, name: str
) -> None:
    """Print a kubeconfig for the fleet API with a new login of a user, or for a site's own API server.

    The login is traded for certificates of 12 hours by `longline`, which kubectl starts. With --cluster it is a token
    that is good for the API server of that site and for nothing else.
    """
    from cloud_server import issuing
    from cloud_server.setup import SetupFailed
    from cloud_server.trust.administration_failed import AdministrationFailed

    if cluster is not None and bearer:
        raise click.UsageError("--token says nothing with --cluster, whose kubeconfig has a token in any case")
    check_out(out, force=force)
    try:
        made = (
            issuing.user_kubeconfig(config, name, expires, bearer=bearer)
            if cluster is None
            else issuing.cluster_kubeconfig(config, name, cluster, expires)
        )
    except (SetupFailed, AdministrationFailed) as error:
        raise Failed.of(error) from error
    deliver(made, out, force=force)


@user.command("certificate")
@config_option("cloud-server")
@click.option("--expires", type=Life(), default="12h", show_default=True, help="After so long it ends.")
@out_option("them")
@click.argument("name")
def user_certificate(config: Path, expires: timedelta, out: Path | None, force: bool, name: str) -> None:
    """Print a new certificate of a user with its key, PEM: for a program that can fetch none, as kube-apiserver."""
    from cloud_server import issuing
    from cloud_server.trust.administration_failed import AdministrationFailed

    check_out(out, force=force)
    try:
        made = issuing.user_certificate(config, name, expires)
    except AdministrationFailed as error:
        raise Failed.of(error) from error
    deliver(made, out, force=force)


@user.command("token")
@config_option("cloud-server")
@_for_days
@out_option("it")
@click.argument("name")
def user_token(config: Path, expires: timedelta, out: Path | None, force: bool, name: str) -> None:
    """Print a new token of a user, to be shown as bearer token or as proxy password; nothing keeps its text."""
    from cloud_server import issuing
    from cloud_server.config import load_server_config
    from cloud_server.trust.administration_failed import AdministrationFailed

    check_out(out, force=force)
    try:
        made = issuing.create_user_token(load_server_config(config), name, expires)
    except AdministrationFailed as error:
        raise Failed.of(error) from error
    deliver(made, out, force=force)


def _roles(config: Path) -> Callable[[ListedUser], Sequence[str] | None]:
    """Returns a function that tells a user's roles by the policy file.

    When the file cannot be used, it prints a warning, and the function returns None for everybody.
    """
    from cloud_server.config import load_server_config, policy_file_of
    from cloud_server.rights.policy_file import NO_POLICY, load_policy_if_any
    from tunnel.aio.process.config import ConfigError

    try:
        rights = (load_policy_if_any(policy_file_of(load_server_config(config))) or NO_POLICY).rights
    except ConfigError as error:
        click.echo(f"warning: the roles are not known, as the policy file cannot be used: {error}", err=True)
        return lambda _user: None
    return lambda user: rights.roles_of(user.principal)
