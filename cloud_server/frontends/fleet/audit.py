"""The audit record of what users do inside boxes: one line per exec, attach, port-forward and log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from cloud_server.frontends.fleet.status import ApiError
from tunnel.core.errors import StreamError

log = structlog.get_logger("audit")


@dataclass(slots=True, kw_only=True)
class AuditRecord:
    """What happened, filled while it happens."""

    action: str
    user: str
    peer: str
    agent: str
    namespace: str
    pod: str
    container: str
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
    finally:
        log.info(
            "fleet",
            action=record.action,
            user=record.user,
            peer=record.peer,
            agent=record.agent,
            pod=f"{record.namespace}/{record.pod}",
            container=record.container,
            command=record.command,
            bytes_in=record.bytes_in,
            bytes_out=record.bytes_out,
            duration_s=round(loop.time() - started_s, 3),
            ended=record.ended,
        )
