"""What our commands have in common: exit codes, errors without tracebacks, the version, `--config`."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import click

from tunnel.aio.process.config import ConfigError, ServerAddress
from tunnel.aio.process.descriptors import open_missing_descriptors
from tunnel.core.wire.faults import BUG, NO_SUCH_CODE, USAGE, Fault, FaultError, fault_of

VERSION = "0.1.0"
"""Of the distribution; `pyproject.toml` reads it here. `importlib.metadata` would cost an agent 2 MB to say the
same.
"""
EXIT_FAILED = 1
EXIT_USAGE = 2

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
    """The command did not do what it was asked to; the message says why and what to do, and its code names the page
    that says more.
    """

    exit_code = EXIT_FAILED

    def __init__(self, text: str, fault: Fault) -> None:
        super().__init__(text)
        self.lines = [told(text, fault)]
        """What is printed, one line for each thing that is wrong."""

    @classmethod
    def of(cls, error: FaultError) -> Failed:
        """An error of a part of ours, as the failure of the command that it ends."""
        return cls(str(error), error.fault)

    @classmethod
    def of_all(cls, faults: Sequence[tuple[str, Fault]]) -> Failed:
        """Several things that are wrong at once, at least one."""
        failed = cls(*faults[0])
        failed.lines = [told(text, fault) for text, fault in faults]
        return failed

    def show(self, file: IO[Any] | None = None) -> None:
        """Print it."""
        for line in self.lines:
            click.echo(line, file=file, err=file is None)


def told(text: str, fault: Fault) -> str:
    """How commands tell of a failure: `Error [LL2012]: the join token was used already`."""
    return f"Error [{fault.code}]: {text}"


@click.command("explain")
@click.argument("code", metavar="LLnnnn")
def explain_command(code: str) -> None:
    """Say what an error code means and what to do about it."""
    from tunnel.aio.process.explain import page

    text = page(code)
    if text is None:
        raise Failed(f"{code[:40]} is no error code: it is written like {BUG.code}", NO_SUCH_CODE)
    click.echo(text, nl=False)


def refuse_password(proxy: str | None) -> None:
    """A proxy's password does not belong on a command line.

    Raises:
        click.UsageError: there is one.
    """
    if proxy is not None and ":" in proxy.rpartition("@")[0].rpartition("://")[2]:
        raise click.UsageError("--proxy with a password can be read by everybody here: set https_proxy to it instead")


def leave_out_rich() -> None:
    """Have structlog do without rich and pygments, which it imports where it finds them, for tracebacks that we never
    print: 5 MB. To be called before anything imports structlog.
    """
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None: an import of it fails


def command_line(group: click.Group) -> None:
    """Run a command and exit: 0, 1 (failed) or 2 (usage or configuration). LONGLINE_DEBUG=1 shows tracebacks."""
    leave_out_rich()
    open_missing_descriptors()
    sys.exit(_exit_code(group))


def _exit_code(group: click.Group) -> int:
    """Run it, tell how it failed, and return the code to exit with."""
    try:
        code: object = group.main(standalone_mode=False)
        return code if isinstance(code, int) else 0
    except click.Abort:
        _say("Aborted!")
        return EXIT_FAILED
    except click.exceptions.NoArgsIsHelpError as error:
        with contextlib.suppress(OSError):
            error.show()
        return error.exit_code
    except Failed as error:
        _say(*error.lines)
        return error.exit_code
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            _say(error.ctx.get_usage(), f"Try '{error.ctx.command_path} --help' for help.\n")
        _say(told(error.format_message(), USAGE))
        return error.exit_code
    except ConfigError as error:
        _say(*(told(line, error.fault) for line in error.faults))
        return EXIT_USAGE
    except BrokenPipeError:  # whoever read has seen enough; nothing more is to be flushed at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        if os.environ.get("LONGLINE_DEBUG"):
            raise
        _say(told(f"{str(error) or type(error).__name__} (LONGLINE_DEBUG=1 shows where)", fault_of(error)))
        return EXIT_FAILED


def _say(*lines: str) -> None:
    """Tell whoever reads standard error. That nobody does changes no exit code."""
    with contextlib.suppress(OSError):
        for line in lines:
            click.echo(line, err=True)
