"""The commands `longline login` and `logout`, which log in and out at the issuer that a server takes ID tokens of."""

from __future__ import annotations

import contextlib
import sys
import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from tunnel.aio.process.command import Failed
from tunnel.core.wire.faults import KUBECONFIG_UNUSABLE, NO_ISSUER, NOT_LOGGED_IN
from tunnel.core.wire.spoken import printable
from tunnel.tool.access_options import Where, told, where_options

if TYPE_CHECKING:
    from tunnel.tool.issuer import Client, Issuer, Tokens
    from tunnel.tool.kubeconfig import Access

DOCUMENT = "/longline/v1/login"


@click.command(short_help="Log in at the issuer of a server's users, with a browser.")
@where_options
@click.option("--server", metavar="URL", help="The fleet API; else that of the kubeconfig's context.")
@click.option(
    "--ca",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="Authority of the server's certificate; else the kubeconfig's, else those that this machine trusts.",
)
@click.option("--device", is_flag=True, help="Show a code to type into a browser on another machine.")
@click.option("--no-browser", is_flag=True, help="Print the URL, and open nothing.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="For the browser to come back to; 0: any.")
@click.option(
    "--client-secret-file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    help="For an issuer that wants one of programs too.",
)
def login(
    where: Where,
    server: str | None,
    ca: Path | None,
    device: bool,
    no_browser: bool,
    port: int,
    client_secret_file: Path | None,
) -> None:
    """Log in, and write a context for kubectl and longline into the kubeconfig.

    \b
    longline login --server https://cloud.example.com:7445 --ca ca.crt
    longline login                         again, once the login is over
    longline login --device                on a machine without a browser

    The server says who vouches for its users ([oidc]). The login lies in ~/.config/longline/logins and is prolonged
    by itself for as long as the issuer does.
    """  # noqa: D301 - click takes the character itself
    from tunnel.tool.issuer import Issuer, LoginRefused
    from tunnel.tool.kubeconfig_entry import check_context, write_context
    from tunnel.tool.oidc_login import keep

    path, access = _server(where, server, ca)
    with told():
        check_context(path, access.context, access.server)
        document = _document(access, where.timeout_s)
        client = _client(document, client_secret_file)
        try:
            issuer = Issuer(client)
            tokens = issuer.by_device(_show) if device else _by_browser(issuer, port, opens=not no_browser)
            keep(access.server, client, tokens)
        except LoginRefused as error:
            raise Failed.of(error) from error
        write_context(path, _entry(access, document))
    who = printable(str(tokens.claims.get("email") or tokens.claims.get("sub")))
    click.echo(f"logged in as {who}; {path} has the context {access.context}")
    if not tokens.refresh_token:
        click.echo("warning: the issuer gave no refresh token: the login ends with this ID token", err=True)


@click.command(short_help="End the login at the issuer, and forget it here.")
@where_options
def logout(where: Where) -> None:
    """End the login of the kubeconfig's context: here, and at the issuer where that can be asked to.

    The context stays. An ID token that was handed out before is good to its end, an hour or so.
    """
    from tunnel.tool.issuer import Issuer, LoginRefused
    from tunnel.tool.oidc_login import forget, read

    access = where.access()
    if not access.issued:
        text = f"context {access.context} has no login at an issuer: what it has is in the kubeconfig"
        raise Failed(text, NOT_LOGGED_IN)
    server, kept, warning = access.login_server, None, ""
    with contextlib.suppress(LoginRefused):  # what cannot be read is removed
        kept = read(server)
    if kept is not None and kept.refresh_token:
        try:
            if not Issuer(kept.client).revoke(kept.refresh_token):
                warning = f"{kept.client.issuer} cannot be asked to end logins: do it there"
        except LoginRefused as error:
            warning = f"the login is forgotten here, and not ended at the issuer: {error}"
    forget(server)
    if warning:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"logged out of {server}" if kept is not None else f"nobody was logged in at {server}")


# Internal


def _server(where: Where, server: str | None, ca: Path | None) -> tuple[Path, Access]:
    """Returns the kubeconfig to write, and the server without anything to show to it."""
    from dataclasses import replace

    from tunnel.tool.kubeconfig import Access, KubeconfigUnusable, kubeconfig_files, load_access

    files = kubeconfig_files(where.kubeconfig)
    found: Access | None = None
    try:
        found = load_access(files, where.context)
    except KubeconfigUnusable as error:
        if server is None:
            text = f"{error}; give the server with --server URL"
            raise Failed(text, KUBECONFIG_UNUSABLE) from error
    if found is not None and (server is None or found.server == server.rstrip("/")):
        known = replace(found, token="", certificate_pem=b"", login="", issued=False)
        return files[0], known if ca is None else replace(known, ca_pem=ca.read_text(encoding="ascii"))
    assert server is not None
    if not _is_https(server):
        raise click.UsageError("--server is no https:// address, such as https://cloud.example.com:7445")
    return files[0], Access(
        context=where.context or f"longline-{urlsplit(server).hostname}",
        server=server.rstrip("/"),
        connect="",
        files=(),
        ca_pem=ca.read_text(encoding="ascii") if ca is not None else "",
    )


def _is_https(server: str) -> bool:
    try:
        url = urlsplit(server)
        return url.scheme == "https" and bool(url.hostname) and url.port != 0
    except ValueError:  # such as https://[
        return False


def _document(access: Access, timeout_s: float) -> dict[str, Any]:
    from tunnel.tool.answers import LOGIN
    from tunnel.tool.api import Api

    found: dict[str, Any] = Api(access, timeout_s).get(DOCUMENT, LOGIN, limit_bytes=256 * 1024)
    if not found.get("issuer"):
        raise Failed(f"{access.server} does not say whom its users log in at", NO_ISSUER)
    return found


def _client(document: dict[str, Any], secret_file: Path | None) -> Client:
    from tunnel.tool.issuer import Client

    return Client(
        issuer=str(document["issuer"]),
        client_id=str(document.get("client_id") or ""),
        scopes=tuple(map(str, document.get("scopes") or ["openid"])),
        issuer_ca=str(document.get("issuer_ca") or ""),
        client_secret=secret_file.read_text(encoding="utf-8").strip() if secret_file is not None else "",
    )


def _by_browser(issuer: Issuer, port: int, *, opens: bool) -> Tokens:
    from tunnel.tool.issuer import Proof
    from tunnel.tool.loopback import Loopback

    proof = Proof()
    with Loopback(port, proof.state) as loopback:
        url = issuer.authorization_url(loopback.redirect, proof)
        click.echo(f"log in at {printable(url)}", err=True)
        sys.stderr.flush()
        if opens:
            # One in the foreground comes back only when the browser is closed, which waits for our page.
            threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()
        return issuer.redeem(loopback.code(issuer.client.issuer), loopback.redirect, proof)


def _show(url: str, code: str, whole: str) -> None:
    click.echo(f"open {url} on any machine and enter the code {code}", err=True)
    if whole:
        click.echo(f"or open {whole}", err=True)


def _entry(access: Access, document: dict[str, Any]) -> dict[str, Any]:
    """Returns a kubeconfig with the one context."""
    from tunnel.kubeapi.kubeconfig import by_issuer, entries

    connect, port = access.connect, document.get("connect_port")
    if not connect and isinstance(port, int):
        host = access.url.hostname or ""
        connect = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    shown = by_issuer(access.server)
    return entries(access.server, access.ca_pem.encode(), f"{access.context}-login", shown, connect, access.context)
