"""The box's own audit record of what is done through its kubelet, refusals too.

One line for each exec, log and forwarded connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from edge_agent.hostkubelet.log_request import ClientGone
from edge_agent.hostkubelet.status import KubeletError
from tunnel.aio.operate.recorded_command import recorded_command
from tunnel.core.wire.errors import StreamError

MAX_NAME_CHARS = 253
"""A container's name is what the client wrote."""

_log = structlog.get_logger("audit")


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """What happened, filled while it happens."""

    action: str
    user: str
    trace_id: str = ""
    container: str
    command: list[str] | None = None
    """None: the action runs none."""
    target: str = ""
    """What a forwarded port leads to; "": the action forwards none."""
    exit_code: int | None = None
    """None: there was none, or nobody was left to be told."""
    bytes_in: int = 0
    """From the client."""
    bytes_out: int = 0
    """To the client."""
    ended: str = "closed"


@contextmanager
def audited(record: RequestRecord) -> Iterator[RequestRecord]:
    """Write the record when the block ends, however it does."""
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    try:
        yield record
    except BaseException as error:
        record.ended = _reason(error)
        raise
    finally:
        forwarded = {"target": record.target} if record.target else {}
        ran = {} if record.command is None else {"command": recorded_command(record.command)}
        _log.info(
            "host",
            action=record.action,
            user=record.user,
            trace_id=record.trace_id,
            container=record.container[:MAX_NAME_CHARS],
            **ran,
            **forwarded,
            exit_code=record.exit_code,
            bytes_in=record.bytes_in,
            bytes_out=record.bytes_out,
            duration_s=round(loop.time() - started_s, 3),
            ended=record.ended,
        )


def _reason(error: BaseException) -> str:
    match error:
        case KubeletError():
            return f"refused: {error.text}"
        case ClientGone():
            return "client gone"
        case StreamError():
            return str(error)
        case asyncio.CancelledError():
            return "agent stopped, or client gone"
        case _:
            return f"failed: {error}"
