"""What our commands have in common: exit codes, errors without tracebacks, the version, `--config`."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

import click

from tunnel.aio.process.config import ConfigError, ServerAddress
from tunnel.aio.process.descriptors import open_missing_descriptors

VERSION = "0.1.0"
"""Of the distribution; `pyproject.toml` reads it here. `importlib.metadata` would cost an agent 2 MB to say the
same.
"""
EXIT_FAILED = 1
EXIT_USAGE = 2

# structlog imports rich and pygments where it finds them, for tracebacks that we never print: 5 MB.
sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None: an import of it fails

config_option = click.option(
    "--config",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="The configuration file.",
)


class AddressParameter(click.ParamType[ServerAddress]):
    """`HOST:PORT` on a command line."""

    name = "HOST:PORT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> ServerAddress:
        """Parse a value of the command line."""
        try:
            return ServerAddress.from_config(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Failed(click.ClickException):
    """The command did not do what it was asked to; the message says why and what to do."""

    exit_code = EXIT_FAILED


def refuse_password(proxy: str | None) -> None:
    """A proxy's password does not belong on a command line.

    Raises:
        click.UsageError: there is one.
    """
    if proxy is not None and ":" in proxy.rpartition("@")[0].rpartition("://")[2]:
        raise click.UsageError("--proxy with a password can be read by everybody here: set https_proxy to it instead")


def command_line(group: click.Group) -> None:
    """Run a command and exit: 0, 1 (failed) or 2 (usage or configuration). LONGLINE_DEBUG=1 shows tracebacks."""
    open_missing_descriptors()
    try:
        group.main(standalone_mode=True)
    except ConfigError as error:
        for fault in error.faults:
            _say(fault)
        sys.exit(EXIT_USAGE)
    except Exception as error:
        if os.environ.get("LONGLINE_DEBUG"):
            raise
        _say(f"Error: {str(error) or type(error).__name__} (LONGLINE_DEBUG=1 shows where)")
        sys.exit(EXIT_FAILED)


def _say(text: str) -> None:
    """Tell whoever reads standard error. That nobody does changes no exit code."""
    with contextlib.suppress(OSError):
        click.echo(text, err=True)
