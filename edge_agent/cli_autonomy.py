"""The subcommands of `edge-agent autonomy`: what they take and print."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_agent.cli_parts import Unreachable, status_of
from tunnel.aio.process.command import Failed, config_option
from tunnel.core.wire.faults import KUBECONFIG_NOT_SWITCHED, NO_AUTONOMY, NODE_NOT_READY

if TYPE_CHECKING:
    from edge_agent.autonomy.check.api_server import Hop
    from edge_agent.autonomy.check.findings import Finding
    from edge_agent.autonomy.k3s import K3sAgent
    from edge_agent.autonomy.upward.dialling import ApiServer
    from edge_agent.config import AutonomyConfig

_KUBECONFIGS = click.option(
    "--kubeconfig",
    "kubeconfigs",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Of the component that is meant; else that of a kubelet of kubeadm or K3s.",
)
_OUTPUT = click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
_RESTART = "restart what uses them: systemctl restart kubelet, say"


@click.group()
def autonomy() -> None:
    """Lead this node's kubelet through the agent, which answers it when the cloud is away; or back."""


@autonomy.command()
@config_option("edge-agent")
@_KUBECONFIGS
def enable(config: Path, kubeconfigs: tuple[Path, ...]) -> None:
    """Lead components through the proxy of the running agent. What their kubeconfigs were is kept beside them."""
    from edge_agent.autonomy import k3s, switching
    from edge_agent.autonomy.kubeconfig_user import refused_user

    settings, authority = _api_proxy(config)
    url = _answering(settings, authority)
    try:
        if (agent := _k3s(kubeconfigs)) is not None:
            before = k3s.enable(agent, url, authority)
            click.echo(f"{agent.copy} leads to {url}{_before(before)}")
            click.echo(f"{agent.settings} has the kubelet of K3s use it: systemctl restart k3s-agent")
            click.echo(
                "a K3s agent that starts waits for its server all the same: see docs/howto/autonomy.md", err=True
            )
            return
        named = _named(kubeconfigs)
        for path in named:
            text = switching.read_file(path).data.decode(errors="replace")
            if refusal := refused_user(text, path.parent, settings.client_cert):
                raise Failed(f"{path} stays as it is: {refusal}", KUBECONFIG_NOT_SWITCHED)
        for path in named:
            click.echo(f"{path} leads to {url}{_before(switching.enable(path, url, authority))}")
    except switching.NotSwitched as error:
        raise Failed.of(error) from error
    click.echo(_RESTART)


@autonomy.command()
@config_option("edge-agent")
@_KUBECONFIGS
def disable(config: Path, kubeconfigs: tuple[Path, ...]) -> None:
    """Put the kubeconfigs back as they were."""
    from edge_agent.autonomy import k3s, switching

    settings, _ = _api_proxy(config)
    url = _url(settings)
    try:
        if (agent := _k3s(kubeconfigs)) is not None:
            click.echo(_again(agent.kubeconfig, k3s.disable(agent), url))
            click.echo("restart it: systemctl restart k3s-agent")
            return
        for path in _named(kubeconfigs):
            click.echo(_again(path, switching.disable(path, url), url))
    except switching.NotSwitched as error:
        raise Failed.of(error) from error
    click.echo(_RESTART)


@autonomy.command()
@config_option("edge-agent")
@_KUBECONFIGS
@_OUTPUT
def check(config: Path, kubeconfigs: tuple[Path, ...], output: str) -> None:
    """Look at this node before it is led through the proxy, and change nothing.

    What would fail while the cloud is away is a warning; what would fail at once is a failure, with exit code 1.
    """
    import json

    findings = list(_found(config, kubeconfigs))
    faults = [one for one in findings if one.level == "fault"]
    if output == "json":
        click.echo(json.dumps({"ready": not faults, "findings": [one.as_json() for one in findings]}, indent=2))
        sys.exit(1 if faults else 0)
    for one in findings:
        if one.level != "fault":
            click.echo(f"warning: {one.told}" if one.level == "warning" else one.told, err=one.level == "warning")
    if faults:
        raise Failed.of_all([(one.told, NODE_NOT_READY) for one in faults])
    click.echo(f"{config}: this node can be led through the agent")


@autonomy.command()
@config_option("edge-agent")
@_OUTPUT
def status(config: Path, output: str) -> None:
    """Tell what of the API is kept for when the cloud is away, and what waits to be told.

    The exit code is 0 when all that was asked for is kept, 1 when something is not, 2 when that is not known.
    """
    import json

    from edge_agent.operate.autonomy_text import is_whole, lines

    answer = status_of(config)["autonomy"]
    if answer is None:
        raise Unreachable("the agent runs without [autonomy]: it answers nobody on this node", NO_AUTONOMY)
    click.echo(json.dumps(answer, indent=2) if output == "json" else "\n".join(lines(answer)))
    sys.exit(0 if is_whole(answer) else 1)


@autonomy.command("kubeconfig")
@config_option("edge-agent")
@click.option("--user", metavar="NAME", help="Whom records name; else who types this.")
@click.option("--hours", type=click.IntRange(1, 720), default=12, show_default=True, help="How long it is good.")
@click.option("--to", type=click.Path(dir_okay=False, path_type=Path), help="Its file; else in the state folder.")
def operator_kubeconfig(config: Path, user: str | None, hours: int, to: Path | None) -> None:
    """Write a kubeconfig for kubectl on this node, which works without the cloud: get, logs, and exec where allowed.

    What it may do stands in [autonomy.operator] of the configuration. It is good here alone.
    """
    import getpass
    from datetime import UTC, datetime, timedelta

    from edge_agent.autonomy.operator import operator_tokens
    from edge_agent.autonomy.operator.operator_kubeconfig import DEFAULT, write
    from tunnel.aio.process.config import state_folder

    settings, authority = _api_proxy(config)
    name = user or os.environ.get("SUDO_USER") or getpass.getuser()
    operator = operator_tokens.Operator(name, datetime.now(UTC) + timedelta(hours=hours))
    path = to or state_folder(config) / DEFAULT
    try:
        token = operator_tokens.new_token(state_folder(config), operator)
        write(path, _url(settings), authority, operator, token)
    except operator_tokens.KeyUnavailable as error:
        raise Failed.of(error) from error
    token_id = operator_tokens.token_id(token)
    click.echo(f"wrote {path}, for {name}, until {operator.end:%Y-%m-%d %H:%M} UTC; records name it token:{token_id}")
    click.echo(f"  kubectl --kubeconfig {path} get pods -A")


# Internal


def _found(config: Path, kubeconfigs: tuple[Path, ...]) -> Iterator[Finding]:
    """Yields all that a look at the node finds."""
    from edge_agent.autonomy.check.api_server import Hop, hardware_clock
    from edge_agent.autonomy.check.components import components, k3s_agent
    from edge_agent.autonomy.check.credentials import access, credentials, node_of
    from edge_agent.autonomy.check.listening import listening
    from edge_agent.autonomy.check.network_plugin import network_plugin
    from edge_agent.autonomy.switching import USUAL
    from edge_agent.autonomy.upward.dialling import ApiServer
    from edge_agent.config import load_agent_config

    settings, authority = _api_proxy(config)
    certificate, key, ca = settings.client_cert, settings.client_key, settings.ca
    yield from credentials(certificate, key, ca)
    yield from access((certificate, key, ca), authority.parent)
    yield from listening(settings.addresses, authority)
    hops = [Hop(one.listen, one.target) for one in load_agent_config(config).listen if one.listen == settings.server]
    server = ApiServer(address=settings.server, ca=ca, client_cert=certificate, client_key=key)
    yield from _asked(server, node_of(certificate), hops[0] if hops else None)
    yield from hardware_clock()
    yield from network_plugin()
    if (agent := _k3s(kubeconfigs)) is not None:
        yield from k3s_agent(agent, _url(settings))
    else:
        named = kubeconfigs or tuple(path for path in USUAL if path.exists())
        yield from components(named, _url(settings), certificate)


def _asked(server: ApiServer, node: str, hop: Hop | None) -> list[Finding]:
    """Returns what the API server is found to be."""
    import asyncio

    from edge_agent.autonomy.check.api_server import api_server

    async def asked() -> list[Finding]:
        return [finding async for finding in api_server(server, node, hop)]

    return asyncio.run(asked())


def _before(server: str | None) -> str:
    return " already" if server is None else f", before: {server}"


def _again(path: Path, server: str | None, url: str) -> str:
    return f"{path} does not lead to {url}" if server is None else f"{path} leads to {server} again"


def _api_proxy(config: Path) -> tuple[AutonomyConfig, Path]:
    """Returns the settings of the node's API proxy, and the file with its certificate.

    Raises:
        Failed: there is no such proxy.
    """
    from edge_agent.autonomy.serving import CERTIFICATE
    from edge_agent.config import load_agent_config
    from tunnel.aio.process.config import state_folder

    settings = load_agent_config(config).autonomy
    if settings is None:
        raise Failed(f"{config} has no [autonomy]", KUBECONFIG_NOT_SWITCHED)
    return settings, state_folder(config) / CERTIFICATE


def _url(settings: AutonomyConfig) -> str:
    return f"https://{settings.addresses[0]}"


def _answering(settings: AutonomyConfig, authority: Path) -> str:
    """Returns the URL of the node's API proxy, which answers there.

    Raises:
        Failed: it does not.
    """
    from edge_agent.autonomy.check.listening import proxy_fault

    address = settings.addresses[0]
    if fault := proxy_fault(address, authority):
        text = f"the API proxy does not answer at {address} ({fault}): is the agent running with [autonomy]?"
        raise Failed(text, KUBECONFIG_NOT_SWITCHED)
    return _url(settings)


def _k3s(kubeconfigs: tuple[Path, ...]) -> K3sAgent | None:
    """Returns the K3s agent that is meant where no kubeconfig is named and none of kubeadm is there; else None."""
    from edge_agent.autonomy.k3s import K3sAgent
    from edge_agent.autonomy.switching import USUAL

    agent = K3sAgent()
    is_meant = not kubeconfigs and not any(path.exists() for path in USUAL) and agent.kubeconfig.exists()
    return agent if is_meant else None


def _named(kubeconfigs: tuple[Path, ...]) -> list[Path]:
    """Returns the kubeconfigs that are meant.

    Raises:
        Failed: there are none.
    """
    from edge_agent.autonomy.switching import USUAL

    found = list(kubeconfigs) or [path for path in USUAL if path.exists()]
    if not found:
        raise Failed(f"there is no {USUAL[0]}: name one by --kubeconfig", KUBECONFIG_NOT_SWITCHED)
    return found
