"""The `longline` command: what an operator types on their own machine."""

from __future__ import annotations

import base64
import binascii
import ssl
from pathlib import Path
from typing import Any

import click

from tunnel.aio.process.command import VERSION, Failed, command_line, explain_command, refuse_password
from tunnel.core.wire.faults import KUBECONFIG_UNUSABLE, PACKAGE_MISSING


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="longline")
def cli() -> None:
    """Uses the tunnels of a cloud server."""


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(VERSION)


@cli.command()
@click.option(
    "--via", required=True, metavar="HOST:PORT|PATH", help="The server's CONNECT listener, or its unix socket."
)
@click.option(
    "--kubeconfig",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File of `cloud-server kubeconfig`: who you are, for HOST:PORT.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="For the server's answer.",
)
@click.option(
    "--proxy",
    metavar="URL",
    help="HTTP proxy to HOST:PORT, http://HOST:PORT, or none; else that of the environment, as curl finds it.",
)
@click.argument("target")
def connect(via: str, kubeconfig: Path | None, timeout_s: float, proxy: str | None, target: str) -> None:
    """Join standard input and output to TARGET, such as box-7:22 or printer.box-7.longline:631.

    For ssh: -o ProxyCommand='longline connect --via HOST:PORT --kubeconfig FILE %h:%p'
    """
    from tunnel.tool.connect import ConnectFailed, Patience, ask, dial_tls, dial_unix
    from tunnel.tool.relay import relay

    refuse_password(proxy)
    patience = Patience(timeout_s)
    try:
        if "/" in via:
            server = dial_unix(Path(via), patience)
        elif kubeconfig is None:
            raise click.UsageError("--via HOST:PORT needs --kubeconfig")
        else:
            server = dial_tls(via, _context(kubeconfig), patience, proxy)
        relay(server, ask(server, target, patience))
    except ConnectFailed as error:
        raise Failed.of(error) from error


def _context(path: Path) -> ssl.SSLContext:
    """Trust and identity of a kubeconfig's current context."""
    try:
        import yaml
    except ImportError as error:  # it has no wheels for 32-bit ARM
        text = "--kubeconfig needs PyYAML, which is not installed: pip install pyyaml"
        raise Failed(text, PACKAGE_MISSING) from error

    from tunnel.aio.identity.openssl import load_chain

    try:
        config = yaml.safe_load(path.read_text())
        context = _named(config, "contexts", config["current-context"])["context"]
        cluster = _named(config, "clusters", context["cluster"])["cluster"]
        user = _named(config, "users", context["user"])["user"]
        tls = ssl.create_default_context(cadata=_decoded(cluster, "certificate-authority-data").decode())
        load_chain(tls, _decoded(user, "client-certificate-data") + b"\n" + _decoded(user, "client-key-data"))
    except OSError as error:
        raise Failed(f"{path} cannot be read: {error.strerror or error}", KUBECONFIG_UNUSABLE) from error
    except (KeyError, TypeError, StopIteration, binascii.Error, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Failed(
            f"{path} is no kubeconfig with a certificate inside, as cloud-server kubeconfig makes it",
            KUBECONFIG_UNUSABLE,
        ) from error
    tls.set_alpn_protocols(["http/1.1"])
    return tls


def _named(config: dict[str, Any], kind: str, name: str) -> dict[str, Any]:
    return next(item for item in config[kind] if item["name"] == name)


def _decoded(section: dict[str, Any], key: str) -> bytes:
    return base64.b64decode(section[key], validate=True)


cli.add_command(explain_command)


def main() -> None:
    """Entry point."""
    command_line(cli)
