"""The audit record of plain connections: one line per stream, when it ends or is refused."""

from __future__ import annotations

import structlog

from tunnel.aio.splice import SpliceResult
from tunnel.core.errors import OpenRefused
from tunnel.core.target import Target

_log = structlog.get_logger("audit")


def log_stream(
    frontend: str, *, user: str, peer: str, agent: str, target: Target, resolved: str, result: SpliceResult
) -> None:
    """A connection was carried: who, to what, how much, how long, why it ended."""
    _log.info(
        "stream",
        frontend=frontend,
        user=user,
        peer=peer,
        agent=agent,
        target=str(target),
        resolved=resolved,
        bytes_in=result.bytes_from_socket,
        bytes_out=result.bytes_to_socket,
        duration_s=round(result.duration_s, 3),
        ended=f"{result.reason}: {result.text}" if result.text else result.reason,
    )


def log_refused(frontend: str, *, user: str, peer: str, agent: str, target: str, refused: OpenRefused) -> None:
    """A connection was not carried, and why."""
    _log.info(
        "refused",
        frontend=frontend,
        user=user,
        peer=peer,
        agent=agent,
        target=target,
        code=refused.code.label,
        reason=str(refused),
    )
