"""The commands of `cloud-server policy`, which check, explain, show and make the policy file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tunnel.aio.process.command import Failed, config_option
from tunnel.core.wire.faults import ASK_UNCLEAR, POLICY_MISSING, POLICY_THERE, STATE_NOT_WRITABLE

if TYPE_CHECKING:
    from cloud_server.rights.policy_file import PolicyFile

F = TypeVar("F", bound=Callable[..., object])

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def policy() -> None:
    """The policy: who may do what. Whatever no rule of it allows is refused."""


@policy.command("check")
@config_option("cloud-server")
@click.argument("file", required=False, type=_FILE)
def check(config: Path, file: Path | None) -> None:
    """Check FILE, else the policy of the configuration: its faults, and its own tests."""
    path = file or _path(config)
    found = _read(path)
    tests = len(found.test)
    click.echo(f"{path}: good, {tests} test{'' if tests == 1 else 's'} passed")


def _ask_options(command: F) -> F:
    for option in (
        click.option("--user", default="", metavar="NAME", help="Who asks."),
        click.option("--group", "groups", multiple=True, metavar="NAME", help="A group of theirs; may repeat."),
        click.option("--agent", default="", metavar="NAME", help="At which box."),
        click.option("--target", default="", metavar="HOST:PORT", help="A target to connect to, or service:NAME."),
        click.option("--verb", default="", metavar="VERB", help="Another verb, such as exec, logs or administer."),
        click.option("--unit", default="", metavar="NAME", help="The container of logs and exec, such as host."),
        click.option("--as", "whom", default="", metavar="WHOM", help="Of impersonate: user:NAME or group:NAME."),
        click.option("--frontend", default="", metavar="NAME", help="The way in: connect, else fleet, unless given."),
        click.option("-o", "output", type=click.Choice(["text", "json"]), default="text", help="Form of the output."),
    ):
        command = option(command)
    return command


@policy.command("explain")
@config_option("cloud-server")
@click.option("--file", type=_FILE, help="Another policy file than that of the configuration.")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="A label of the box; may repeat.")
@_ask_options
def explain(
    config: Path, file: Path | None, labels: tuple[str, ...], groups: tuple[str, ...], output: str, **words: Any
) -> None:
    """Say whether somebody may do something by the file, and which rule decides. `longline policy explain` asks the
    running server.
    """
    from cloud_server.rights.explain import AskUnclear, build_ask
    from cloud_server.rights.explain import explain as explained
    from tunnel.aio.operate.explained import explanation_text

    if not all("=" in label for label in labels):
        raise click.UsageError("a label is KEY=VALUE")
    given = {key: value for key, _, value in (label.partition("=") for label in labels)}
    found = _read(file or _path(config))
    try:
        ask = build_ask(groups=groups, labels=given, **words)
    except AskUnclear as error:
        raise Failed(str(error), ASK_UNCLEAR) from error
    shown = explained(found.rights, ask).as_json()
    click.echo(json.dumps(shown, indent=2) if output == "json" else explanation_text(shown))


@policy.command("show")
@config_option("cloud-server")
@click.option("-o", "output", type=click.Choice(["text", "json"]), default="text", help="Form of the output.")
def show(config: Path, output: str) -> None:
    """Show who has which role, and what each role allows and denies, the built-in ones too."""
    from cloud_server.rights.shown import policy_json, policy_text

    found = _read(_path(config))
    click.echo(json.dumps(policy_json(found), indent=2) if output == "json" else policy_text(found))


@policy.command("init")
@config_option("cloud-server")
@click.option("--admin", "admins", required=True, multiple=True, metavar="NAME", help="Who may do all; may repeat.")
def init(config: Path, admins: tuple[str, ...]) -> None:
    """Make a policy file for a server that has none, with its first administrators."""
    from cloud_server.rights.policy_file import Name, first_policy

    path = _path(config)
    try:
        text = first_policy([Name.from_config(name) for name in admins])
    except ValueError as error:
        raise click.UsageError(f"--admin {error}") from error
    try:
        with path.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except FileExistsError as error:
        raise Failed(
            f"{path} is there already: add to it, and see what it says with policy show", POLICY_THERE
        ) from error
    except OSError as error:
        raise Failed(f"{path} cannot be written: {error.strerror}", STATE_NOT_WRITABLE) from error
    click.echo(f"made {path}; a running server takes it at once")


# Internal


def _path(config: Path) -> Path:
    from cloud_server.config import load_server_config, policy_file_of

    return policy_file_of(load_server_config(config))


def _read(path: Path) -> PolicyFile:
    from cloud_server.rights.policy_file import load_policy_if_any

    found = load_policy_if_any(path)
    if found is None:
        raise Failed(f"{path}: there is no such file: cloud-server policy init --admin NAME makes one", POLICY_MISSING)
    return found
