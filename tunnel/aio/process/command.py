"""What all our commands share on top of click: `--config`, where secrets are written to, and failures."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeVar

import click

from tunnel.aio.process.config import ServerAddress
from tunnel.aio.process.outcome import EXIT_FAILED, exit_code, prepare, say, told
from tunnel.aio.process.plain_run import config_in_its_place, config_places, config_variable
from tunnel.core.wire.faults import BUG, NO_SUCH_CODE, OUTPUT_UNUSABLE, USAGE, Fault, FaultError

F = TypeVar("F", bound=Callable[..., object])


def config_option(daemon: str) -> Callable[[F], F]:
    """Returns the option `--config`, which is not needed where the file is in a usual place, or in the environment."""
    places = config_places(daemon)

    def given(_ctx: click.Context, _option: click.Parameter, value: Path | None) -> Path:
        if value is None:
            raise click.UsageError(f"give --config FILE: there is no {' and no '.join(map(str, places))}")
        return value

    return click.option(
        "--config",
        type=click.Path(dir_okay=False, readable=False, path_type=Path),  # reading it says why it cannot be read
        default=lambda: config_in_its_place(daemon),
        callback=given,
        envvar=config_variable(daemon),
        show_envvar=True,
        show_default=f"{places[0]}, else {places[1]}",
        help="The configuration file.",
    )


def out_option(what: str) -> Callable[[F], F]:
    """Returns the options `--out` and `--force`, for what must not be read by others; see `deliver`."""

    def add(command: F) -> F:
        out = click.option(
            "--out",
            metavar="FILE",
            type=click.Path(dir_okay=False, path_type=Path),
            help=f"Write {what} to a new file that only its owner may read, not to standard output.",
        )
        return out(click.option("--force", is_flag=True, help="Replace the file of --out.")(command))

    return add


def check_out(out: Path | None, *, force: bool) -> None:
    """Checks, before a secret is made, whether it could be written to `out`; None stands for standard output.

    Raises:
        Failed: it could not.
    """
    if out is None:
        return
    if not force and (out.exists() or out.is_symlink()):
        raise Failed(f"{out} is there already: take another name, or --force", OUTPUT_UNUSABLE)
    if not out.parent.is_dir():
        raise Failed(f"{out.parent} is no folder", OUTPUT_UNUSABLE)


def deliver(text: str, out: Path | None, *, force: bool) -> None:
    """Writes a secret to the file of `--out`, mode 0600, or to standard output if that is None.

    Raises:
        Failed: the file cannot be written.
    """
    if out is None:
        click.echo(text, nl=not text.endswith("\n"))
        _warn_if_readable()
        return
    target = out.with_name(f".{out.name}.new") if force else out
    try:
        with suppress(FileNotFoundError):
            if force:
                target.unlink()
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(text if text.endswith("\n") else f"{text}\n")
            opened.flush()
            os.fsync(descriptor)
        if force:
            target.replace(out)
    except FileExistsError as error:  # somebody was faster
        raise Failed(f"{out} is there already: take another name, or --force", OUTPUT_UNUSABLE) from error
    except OSError as error:
        with suppress(OSError):
            target.unlink()
        raise Failed(f"{out} cannot be written: {error.strerror}", OUTPUT_UNUSABLE) from error


class AddressParameter(click.ParamType[ServerAddress]):
    """The type of a `HOST:PORT` on a command line."""

    name = "HOST:PORT"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> ServerAddress:
        """Returns the address in a value of the command line.

        Raises:
            click.BadParameter: the value is none.
        """
        try:
            return ServerAddress.from_config(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Failed(click.ClickException):
    """The command did not do what it was asked to.

    The message says why and what to do, and its code names the page that says more.
    """

    exit_code = EXIT_FAILED

    def __init__(self, text: str, fault: Fault) -> None:
        super().__init__(text)
        self.lines = [told(text, fault)]
        """The lines that are printed, one for each thing that is wrong."""

    @classmethod
    def of(cls, error: FaultError) -> Failed:
        """Returns an error of a part of ours as the failure of the command that it ends."""
        return cls(str(error), error.fault)

    @classmethod
    def of_all(cls, faults: Sequence[tuple[str, Fault]]) -> Failed:
        """Returns the failure for several things that are wrong at once, at least one."""
        failed = cls(*faults[0])
        failed.lines = [told(text, fault) for text, fault in faults]
        return failed

    def show(self, file: IO[Any] | None = None) -> None:
        """Prints its lines to `file`, or to standard error if that is None."""
        for line in self.lines:
            click.echo(line, file=file, err=file is None)


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
    """Refuses a proxy with a password: it does not belong on a command line.

    Raises:
        click.UsageError: there is one.
    """
    if proxy is not None and ":" in proxy.rpartition("@")[0].rpartition("://")[2]:
        raise click.UsageError("--proxy with a password can be read by everybody here: set https_proxy to it instead")


def command_line(group: click.Group) -> None:
    """Runs a command and exits: 0, 1 (failed) or 2 (usage or configuration). LONGLINE_DEBUG=1 shows tracebacks."""
    prepare()
    sys.exit(exit_code(lambda: _run(group)))


def _run(group: click.Group) -> object:
    """Runs the command, and returns what it returned, or the exit code of how click says it failed."""
    try:
        return group.main(standalone_mode=False)
    except click.Abort:
        say("Aborted!")
        return EXIT_FAILED
    except click.exceptions.NoArgsIsHelpError as error:
        with suppress(OSError):
            error.show()
        return error.exit_code
    except Failed as error:
        say(*error.lines)
        return error.exit_code
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            say(error.ctx.get_usage(), f"Try '{error.ctx.command_path} --help' for help.\n")
        say(told(error.format_message(), USAGE))
        return error.exit_code


def _warn_if_readable() -> None:
    """Warns when a secret went into a file that others may read, as a shell's redirection makes it."""
    with suppress(OSError, ValueError):
        status = os.fstat(sys.stdout.fileno())
        if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
            say("warning: others can read the file that this was written to: --out FILE makes one that they cannot")
