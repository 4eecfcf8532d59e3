"""Adds the options that say which fleet and as whom, alike in every command, and makes of them the ways to a server."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tunnel.aio.process.command import Failed, refuse_password
from tunnel.core.wire.faults import VIA_INVALID

if TYPE_CHECKING:
    from tunnel.tool.api import Api
    from tunnel.tool.connect import Joined, Proxy
    from tunnel.tool.kubeconfig import Access

ADMIN_SOCKET = Path("/var/lib/cloud-server/admin.sock")
"""The admin socket of a server on this machine that was installed as README says."""
COMPLETE_WITHIN_S = 2.0
"""The seconds that completion may take: a shell that waits for names is worse than one that has none."""
Command = Callable[..., Any]


class CommandFailed(Failed):
    """A command on a box could not be run or was lost; its own exit codes are passed on. The number is ssh's."""

    exit_code = 255


class ServerBad(Failed):
    """The server does not say how it fares, which is as bad as if it had said so."""

    exit_code = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """The options that say which fleet is meant, as they were typed."""

    kubeconfig: Path | None
    context: str | None
    timeout_s: float

    def access(self) -> Access:
        """Reads the kubeconfig, and returns the context that the options name.

        Raises:
            Failed: there is none that can be used.
        """
        from tunnel.tool.kubeconfig import KubeconfigUnusable, kubeconfig_files, load_access

        try:
            return load_access(kubeconfig_files(self.kubeconfig), self.context)
        except KubeconfigUnusable as error:
            raise Failed.of(error) from error

    def api(self) -> Api:
        """Returns the way to ask the fleet API of that context.

        Raises:
            Failed: the kubeconfig cannot be used.
        """
        from tunnel.tool.api import Api, ApiFailed

        try:
            return Api(self.access(), self.timeout_s)
        except ApiFailed as error:
            raise Failed.of(error) from error

    def words(self) -> list[str]:
        """Returns the same options as words, for the command line of a `longline` that another program starts."""
        from tunnel.tool.kubeconfig import kubeconfig_files

        words: list[str] = []
        files = kubeconfig_files(self.kubeconfig)
        if len(files) == 1:  # several are in KUBECONFIG, which the other one reads too
            words += ["--kubeconfig", str(files[0].absolute())]
        return words + (["--context", self.context] if self.context else [])


def where_options(command: Command) -> Command:
    """Adds --kubeconfig, --context and --timeout to a command, which get to it as `where`."""

    @click.option(
        "--kubeconfig",
        type=click.Path(dir_okay=False, path_type=Path),
        help="Who you are and where; else $KUBECONFIG, else ~/.kube/config.",
    )
    @click.option("--context", metavar="NAME", help="Context of the kubeconfig; else its current one.")
    @click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0, min_open=True),
        default=30.0,
        show_default=True,
        metavar="SECONDS",
        help="For the server's answer to begin, and for each pause in a list.",
    )
    @wraps(command)
    def wrapped(*args: Any, kubeconfig: Path | None, context: str | None, timeout_s: float, **kwargs: Any) -> Any:
        return command(*args, where=Where(kubeconfig=kubeconfig, context=context, timeout_s=timeout_s), **kwargs)

    return wrapped


def via_options(command: Command) -> Command:
    """Adds --via and --proxy to a command, which get to it as `via` and `proxy`."""

    @click.option(
        "--via",
        metavar="HOST:PORT|PATH",
        help="The server's CONNECT listener, or its unix socket; HOST:PORT is remembered for the fleet.",
    )
    @click.option(
        "--proxy",
        metavar="URL",
        help="HTTP proxy to HOST:PORT, http://HOST:PORT, or none; else that of the environment, as curl finds it.",
    )
    @wraps(command)
    def wrapped(*args: Any, proxy: str | None, **kwargs: Any) -> Any:
        refuse_password(proxy)
        return command(*args, proxy=proxy, **kwargs)

    return wrapped


def output_option(*kinds: str) -> Callable[[Command], Command]:
    """Returns what adds -o with these values to a command; the first is the default."""
    return click.option("-o", "--output", "output", type=click.Choice(kinds), default=kinds[0], show_default=True)


@dataclass(slots=True)
class Connector:
    """Reaches targets through the CONNECT listener, each with a connection of its own."""

    via: str
    where: Where
    proxy: str | None
    access: Access | None
    """The kubeconfig's context; None for the unix socket, which trusts whoever may open it."""
    remember: bool
    """Whether `via` was typed: it is remembered once it has worked."""

    def __call__(self, target: str) -> tuple[Proxy, Joined]:
        """Connects to a target, and returns the server and its answer; the caller must close the connection.

        Raises:
            ConnectFailed: it cannot be reached.
        """
        from tunnel.tool.connect import Patience, ask, dial_tls, dial_unix
        from tunnel.tool.settings import remember_via

        token = self._bearer()
        patience = Patience(self.where.timeout_s)
        if self.access is None:
            server = dial_unix(Path(self.via), patience)
            return server, ask(server, target, patience)
        server = dial_tls(self.via, self.access.tls(), patience, self.proxy or self.access.proxy)
        joined = ask(server, target, patience, token)
        if self.remember:
            self.remember = False
            remember_via(self.access.server, self.via)
        return server, joined

    def _bearer(self) -> str:
        from tunnel.tool.connect import ConnectFailed
        from tunnel.tool.kubeconfig import KubeconfigUnusable

        try:
            return self.access.bearer() if self.access is not None else ""
        except KubeconfigUnusable as error:
            raise ConnectFailed(error.text, error.fault) from error


def connector(where: Where, via: str | None, proxy: str | None) -> Connector:
    """Finds out where the CONNECT listener is: as typed, else as remembered, else as the kubeconfig says.

    Raises:
        Failed: nobody says it, or there is no kubeconfig.
        click.UsageError: HOST:PORT was typed and there is no kubeconfig.
    """
    from tunnel.tool.kubeconfig import KubeconfigUnusable, kubeconfig_files, load_access
    from tunnel.tool.settings import SettingsUnusable, remembered_via

    if via is not None and "/" in via:
        return Connector(via, where, proxy, None, False)
    files = kubeconfig_files(where.kubeconfig)
    if via is not None and not any(path.exists() for path in files) and where.kubeconfig is None:
        raise click.UsageError("--via HOST:PORT needs --kubeconfig, or a file in $KUBECONFIG or ~/.kube/config")
    try:
        access = load_access(files, where.context)
        found = via or remembered_via(access.server) or access.connect
    except (KubeconfigUnusable, SettingsUnusable) as error:
        raise Failed.of(error) from error
    if not found:
        raise Failed(
            f"nothing says where the CONNECT listener of {access.server} is: give --via HOST:PORT once, it is"
            " remembered (or make the kubeconfig anew with [connect] listen in the server's file)",
            VIA_INVALID,
        )
    return Connector(found, where, proxy, access, via is not None)


@contextmanager
def told(failed: type[Failed] = Failed) -> Iterator[None]:
    """Raises a command's error, of the class `failed`, for what goes wrong in the block, so that it is told in one
    sentence.

    An interrupt ends the process with 130, as in sh; an output that nobody reads any more ends it with 1.
    """
    from tunnel.tool.api import ApiFailed
    from tunnel.tool.connect import ConnectFailed
    from tunnel.tool.kubeconfig import KubeconfigUnusable

    try:
        yield
    except (ApiFailed, ConnectFailed, KubeconfigUnusable) as error:
        raise failed.of(error) from error
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except KeyboardInterrupt:
        click.echo(err=True)
        sys.exit(130)
