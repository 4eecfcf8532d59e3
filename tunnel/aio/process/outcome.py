"""How any command of ours ends: its exit code, and errors told in a line each, without a traceback.

Nothing here loads click, which a daemon that was started plainly does without; see `plain_run.py`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

from tunnel.aio.process.config import ConfigError
from tunnel.aio.process.descriptors import open_missing_descriptors
from tunnel.core.wire.faults import Fault, fault_of

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2


def told(text: str, fault: Fault) -> str:
    """Returns a failure as commands tell of it: `Error [LL2012]: the join token was used already`."""
    return f"Error [{fault.code}]: {text}"


def say(*lines: str) -> None:
    """Prints lines to standard error. That nobody reads them, or that it is closed, changes no exit code."""
    if sys.stderr is None:
        return
    with suppress(OSError):
        for line in lines:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()


def exit_code(work: Callable[[], object]) -> int:
    """Does the work, tells how it failed, and returns the code to exit with: what it returned, or 0 if that is no
    number. LONGLINE_DEBUG=1 lets errors through.
    """
    try:
        code = work()
        return code if isinstance(code, int) else EXIT_OK
    except ConfigError as error:
        say(*(told(line, error.fault) for line in error.faults))
        return EXIT_USAGE
    except KeyboardInterrupt:  # a daemon that does not listen for signals yet
        say("Aborted!")
        return EXIT_FAILED
    except BrokenPipeError:  # whoever read has seen enough; nothing more is to be flushed at the end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        if os.environ.get("LONGLINE_DEBUG"):
            raise
        say(told(f"{str(error) or type(error).__name__} (LONGLINE_DEBUG=1 shows where)", fault_of(error)))
        return EXIT_FAILED


def prepare() -> None:
    """Makes this process fit to run a command. It must be called before anything imports structlog."""
    leave_out_rich()
    open_missing_descriptors()


def leave_out_rich() -> None:
    """Makes structlog do without rich and pygments. It must be called before anything imports structlog.

    It would import them where it finds them, for tracebacks that we never print: 5 MB.
    """
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]  # None: an import of it fails
