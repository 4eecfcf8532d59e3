"""The audit record of what users do inside boxes: one line per exec, attach, port-forward and log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from tunnel.aio.operate.recorded_command import recorded_command
from tunnel.core.wire.errors import StreamError
from tunnel.kubeapi.status import ApiError

log = structlog.get_logger("audit")


MAX_NAME_CHARS = 253 + 64
"""Of a pod with its namespace; what a client asked for may be no name at all."""


@dataclass(slots=True, kw_only=True)
class AuditRecord:
    """What happened, filled while it happens."""

    action: str
    user: str
    peer: str
    agent: str = ""
    """Empty: there is no such pod."""
    namespace: str
    pod: str
    container: str
    """As asked for; empty for the pod's first."""
    command: list[str]
    bytes_in: int = 0
    """From the client."""
    bytes_out: int = 0
    """To the client."""
    ended: str = "closed"


@contextmanager
def audited(record: AuditRecord) -> Iterator[AuditRecord]:
    """Write the record when the block ends, however it does."""
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    try:
        yield record
    except asyncio.CancelledError:
        record.ended = "server stopped"
        raise
    except ApiError as error:
        record.ended = f"refused: {error.message}"
        raise
    except StreamError as error:
        record.ended = str(error)
        raise
    except Exception as error:
        record.ended = f"failed: {type(error).__name__}"
        raise
    finally:
        log.info(
            "fleet",
            action=record.action,
            user=record.user,
            peer=record.peer,
            agent=record.agent,
            pod=f"{record.namespace}/{record.pod}"[:MAX_NAME_CHARS],
            container=record.container[:MAX_NAME_CHARS],
            command=recorded_command(record.command),
            bytes_in=record.bytes_in,
            bytes_out=record.bytes_out,
            duration_s=round(loop.time() - started_s, 3),
            ended=record.ended,
        )
