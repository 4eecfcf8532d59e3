"""Starts a daemon by `run` alone, or `run --config FILE`, without the machinery of its command line.

That is how a service manager and most people start one. A daemon keeps all that was ever loaded, and click with the
definitions of some fifty commands is 2 MB of it. Whatever else is said, `run --help` or a wrong word, is click's.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tunnel.aio.process.outcome import exit_code, prepare


def start_if_plain(daemon: str, start: Callable[[Path], int]) -> None:
    """Starts a daemon, and exits with its code, if this process's command line is plainly one that starts it. Returns
    otherwise: then its commands are to read the command line.

    Args:
        daemon: whose command line it is, `edge-agent` for example.
        start: runs the daemon with a configuration, and returns the exit code.
    """
    config = plain_run(sys.argv[1:], daemon)
    if config is not None:
        prepare()
        sys.exit(exit_code(lambda: start(config)))


def config_places(daemon: str) -> list[Path]:
    """Returns where the configuration of a daemon is looked for when nobody names it."""
    return [Path(f"/etc/longline/{daemon}.toml"), Path(f"/var/lib/{daemon}/{daemon}.toml")]


def config_variable(daemon: str) -> str:
    """Returns the name of the environment variable that names the configuration of a daemon."""
    return f"LONGLINE_{daemon.upper().replace('-', '_')}_CONFIG"


def config_in_its_place(daemon: str) -> Path | None:
    """Returns the configuration that is in a usual place; None when there is none."""
    return next(filter(_is_there, config_places(daemon)), None)


def plain_run(words: Sequence[str], daemon: str) -> Path | None:
    """Returns the configuration that a command line names, or leaves to the environment or the usual places.

    Args:
        words: the command line without the name of the program.
        daemon: whose it is, `edge-agent` for example.

    Returns:
        None when the command line is not plainly one that starts the daemon, or the file is no file: click is to say
        so.
    """
    match words:
        case ["run"]:
            named = os.environ.get(config_variable(daemon))
            path = Path(named) if named else config_in_its_place(daemon)
        case ["run", "--config", str(named)]:
            path = Path(named)
        case _:
            return None
    return None if path is None or os.path.isdir(path) else path  # noqa: PTH112 - that of Path raises


def _is_there(path: Path) -> bool:
    """Returns whether a file is there, also when only others may look: reading it then says so."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True
