"""What both daemons are told to do in the same way: to read their file again, and to log more or less."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tunnel.aio.operate.admin import AdminCall, AdminError
from tunnel.aio.operate.bodies import Body
from tunnel.aio.operate.desired_state import Reloaded
from tunnel.aio.process import logs
from tunnel.core.wire.faults import CONFIG_INVALID, Fault


def set_log_level(call: AdminCall) -> dict[str, str]:
    """Logs what the request's `level` says from now on; returns the answer.

    Raises:
        AdminError: 400, it names no level.
    """
    logs.set_level(Body(call.body).choice("level", logs.LEVELS))
    return {"level": logs.level()}


async def reload(
    call: AdminCall, read_again: Callable[[str], Awaitable[Reloaded]], check: str, fault: Fault = CONFIG_INVALID
) -> Reloaded:
    """Reads a file of the daemon again; returns what came of it.

    Args:
        call: who asks.
        read_again: reads it, and is told why.
        check: the command that tells all that is wrong with the file.
        fault: what a file that cannot be used is called.

    Raises:
        AdminError: 409, the file cannot be used.
    """
    one = await read_again(f"asked for by {call.principal}")
    if one.fault:
        raise AdminError(409, one.fault, code=fault.code, remedy=check)
    return one
