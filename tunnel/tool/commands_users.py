"""The commands of `longline user`, which tell and change who may log in, and the plugin that kubectl logs in with."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from tunnel.aio.process.command import Failed, check_out, deliver, out_option
from tunnel.aio.process.life import Life
from tunnel.tool.access_options import Where, output_option, told, where_options
from tunnel.tool.commands_server import print_json, server_options

_for_days = click.option("--expires", type=Life(), default="90d", show_default=True, help="After so long it ends.")
UNNOTICED = timedelta(minutes=1)
"""By how much a life may be shorter than asked for before that is told: clocks differ, and making takes a moment."""


@click.command(short_help="The plugin that kubectl logs in with.")
@click.option("--server", required=True, metavar="URL", help="Of the fleet API, unless kubectl says another.")
@click.option("--oidc", is_flag=True, help="Print an ID token of `longline login` instead.")
def credential(server: str, oidc: bool) -> None:
    """Print a certificate for the login in $LONGLINE_LOGIN, as kubectl takes it from a credential plugin.

    Kubeconfigs of `cloud-server user kubeconfig` have kubectl start this. The certificate is kept in
    ~/.cache/longline, and another asked for when a third of its life is left.
    """
    text, warning = _id_token(server) if oidc else _certificate(server)
    if warning:
        click.echo(f"warning: {warning}", err=True)
    sys.stdout.write(text)


def _certificate(server: str) -> tuple[str, str]:
    from tunnel.tool.login import LoginFailed, access_for_kubectl, certificate_for

    try:
        held = certificate_for(access_for_kubectl(server))
    except LoginFailed as error:
        raise Failed.of(error) from error
    return held.text, held.warning


def _id_token(server: str) -> tuple[str, str]:
    from tunnel.tool.issuer import LoginRefused
    from tunnel.tool.oidc_login import id_token

    try:
        found = id_token(server)
    except LoginRefused as error:
        raise Failed.of(error) from error
    return found.credential, found.warning


@click.group(short_help="List who may log in, add and revoke users, hand out credentials.")
def user() -> None:
    """The people and programs that may log in, and what they log in with."""


@user.command("list")
@server_options
@output_option("table", "json")
def user_list(api: Any, output: str) -> None:
    """List every user: their roles, with what they can log in, until when, and when it was used last."""
    from tunnel.tool.admin import PREFIX, users_text
    from tunnel.tool.answers import USERS

    with told():
        document = api().get(PREFIX + "users", USERS)
    if output == "json":
        print_json(document)
    else:
        click.echo(users_text(document["users"]))


@user.command("show")
@server_options
@output_option("text", "json")
@click.argument("name")
def user_show(api: Any, output: str, name: str) -> None:
    """Show one user: roles, and a line for each credential that is good now with what it is limited to and its end."""
    from urllib.parse import quote

    from tunnel.tool.admin import PREFIX, user_text
    from tunnel.tool.answers import USER

    with told():
        document = api().get(f"{PREFIX}users/{quote(name, safe='')}", USER)
    if output == "json":
        print_json(document)
    else:
        click.echo(user_text(document))


@user.command("add")
@server_options
@click.option("--group", "groups", multiple=True, metavar="GROUP", help="That policies name; may repeat.")
@click.argument("name")
def user_add(api: Any, groups: tuple[str, ...], name: str) -> None:
    """Take a user in, or give one that is there these groups and no others.

    One that was revoked is a user again; what they had before stays worthless.
    """
    from tunnel.tool.admin import PREFIX
    from tunnel.tool.answers import MADE_USER

    with told():
        made = api().ask("POST", PREFIX + "users", {"name": name, "groups": list(groups)}, MADE_USER)
    told_groups = f", in {', '.join(made['groups'])}" if made.get("groups") else ""
    click.echo(f"{name} is a user{told_groups}; next: longline user kubeconfig {name}")


@user.command("revoke")
@server_options
@click.option("--reason", default="", metavar="TEXT", help="Shown in lists, and told to the user.")
@click.argument("name")
def user_revoke(api: Any, name: str, reason: str) -> None:
    """Block a user, whatever they show, and end what they do."""
    from urllib.parse import quote

    from tunnel.tool.admin import PREFIX

    with told():
        api().ask("POST", f"{PREFIX}users/{quote(name, safe='')}/revoke", {"reason": reason})
    click.echo(f"{name} is revoked")


@user.command("token")
@server_options
@_for_days
@out_option("it")
@click.argument("name")
def user_token(api: Any, expires: timedelta, out: Path | None, force: bool, name: str) -> None:
    """Print a new token of a user, to be shown as bearer token or as proxy password; nothing keeps its text."""
    check_out(out, force=force)
    with told():
        made = _token(api(), name, expires, "bearer")
    deliver(made, out, force=force)


@user.command("certificate")
@server_options
@click.option("--expires", type=Life(), default="12h", show_default=True, help="After so long it ends.")
@out_option("them")
@click.argument("name")
def user_certificate(api: Any, expires: timedelta, out: Path | None, force: bool, name: str) -> None:
    """Print a new certificate of a user with its key, which is made here: for a program that can fetch none."""
    from base64 import b64encode

    from tunnel.aio.identity.keys import KeysUnavailable, new_key, request_for
    from tunnel.tool.admin import PREFIX
    from tunnel.tool.answers import MADE_CERTIFICATE

    check_out(out, force=force)
    try:
        key_pem = new_key()
        csr = b64encode(request_for(key_pem)).decode()
    except KeysUnavailable as error:
        raise Failed.of(error) from error
    with told():
        body = {"user": name, "csr": csr, "expires_s": expires.total_seconds()}
        made = api().ask("POST", PREFIX + "certificates", body, MADE_CERTIFICATE)
    _tell_if_short(made, expires)
    deliver(made["certificate"] + key_pem.decode(), out, force=force)


@user.command("kubeconfig")
@where_options
@click.option("--token", "bearer", is_flag=True, help="With a token inside: for a machine without longline.")
@_for_days
@out_option("it")
@click.argument("name")
def user_kubeconfig(where: Where, bearer: bool, expires: timedelta, out: Path | None, force: bool, name: str) -> None:
    """Print a kubeconfig with a new login of a user, for the server of your own kubeconfig.

    For the API server of a site: `cloud-server user kubeconfig --cluster`, on the server.
    """
    from tunnel.kubeapi.kubeconfig import by_login, by_token, kubeconfig

    check_out(out, force=force)
    with told():
        access = where.access()
        made = _token(where.api(), name, expires, "bearer" if bearer else "login")
    shown = by_token(made) if bearer else by_login(access.server, made)
    deliver(kubeconfig(access.server, access.ca_pem.encode(), name, shown, access.connect), out, force=force)


def _token(api: Any, user: str, life: timedelta, purpose: str) -> str:
    from tunnel.tool.admin import PREFIX
    from tunnel.tool.answers import MADE_TOKEN

    body = {"user": user, "expires_s": life.total_seconds(), "purpose": purpose}
    made = api.ask("POST", PREFIX + "user-tokens", body, MADE_TOKEN)
    _tell_if_short(made, life)
    return str(made["token"])


def _tell_if_short(made: Mapping[str, Any], asked: timedelta) -> None:
    """Says on standard error when a credential ends before the life that was asked for."""
    until = datetime.fromisoformat(made["until"])
    if until - datetime.now(UTC) < asked - UNNOTICED:
        click.echo(
            f"it ends at {until:%Y-%m-%d %H:%M} UTC: what you make for yourself ends with what you log in with; "
            "another administrator, or cloud-server on its own machine, can make one that is good for longer",
            err=True,
        )
