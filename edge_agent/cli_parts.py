"""What the subcommands of `edge-agent` share: they ask the running agent, by its admin socket."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunnel.aio.process.command import Failed
from tunnel.core.wire.faults import BUG, NO_LINK

if TYPE_CHECKING:
    from tunnel.aio.operate.admin_client import AdminClient

EXIT_BAD = 2
"""The exit code of `status` when nobody reaches this box, or nothing is known."""


class Unreachable(Failed):
    """There is no agent to ask, which is as bad as one without a link."""

    exit_code = EXIT_BAD


def status_of(config: Path) -> dict[str, Any]:
    """Returns the status of the running agent, as the admin API has it.

    Raises:
        Unreachable: it does not answer.
    """
    from tunnel.aio.operate.admin_client import AdminRefused, AdminUnreachable

    try:
        answer: dict[str, Any] = _admin(config).get("status")
    except AdminUnreachable as error:
        raise Unreachable(str(error), NO_LINK) from error
    except AdminRefused as error:
        raise Unreachable(str(error), BUG) from error
    return answer


def asked(config: Path, what: str) -> dict[str, Any]:
    """Returns what the running agent answers to a request to do something.

    Raises:
        Unreachable: it does not answer.
        Failed: it refuses.
    """
    from tunnel.aio.operate.admin_client import AdminRefused, AdminUnreachable
    from tunnel.core.wire.faults import FAULTS

    try:
        answer: dict[str, Any] = _admin(config).call("POST", what)
    except AdminUnreachable as error:
        raise Unreachable(str(error), NO_LINK) from error
    except AdminRefused as error:
        raise Failed(error.text, FAULTS.get(error.code, BUG)) from error
    return answer


# Internal


def _admin(config: Path) -> AdminClient:
    from tunnel.aio.operate.admin import SOCKET_NAME
    from tunnel.aio.operate.admin_client import unix_client
    from tunnel.aio.process.config import state_folder

    return unix_client(state_folder(config) / SOCKET_NAME)
