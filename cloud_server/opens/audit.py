"""The audit record of connections: one line per open, when it ends, is refused or is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from tunnel.aio.sessions.splice import SpliceResult
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.target import Target

MAX_TARGET_CHARS = 300
"""What a client asked for is its own text, of up to a whole head; a DNS name has up to 253."""

_log = structlog.get_logger("audit")


@dataclass(slots=True, kw_only=True)
class OpenRecord:
    """What is known of an open, filled while it goes on."""

    frontend: str
    user: str
    peer: str
    asked: str
    """The target in the client's words."""
    agent: str = ""
    target: Target | None = None
    """What the agent was asked for; None while no agent was."""
    stream: Stream | None = None
    """None: never opened."""


@contextmanager
def audited(record: OpenRecord) -> Iterator[OpenRecord]:
    """Write the record when the block ends, however it does. The block has ended its stream by then."""
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    refused = OpenRefused("the client gave up", Code.CANCELLED)
    try:
        yield record
    except OpenRefused as error:
        refused = error
        raise
    except asyncio.CancelledError:
        refused = OpenRefused("the server is stopping", Code.SHUTTING_DOWN)
        raise
    except Exception:
        refused = OpenRefused("a fault of the server, whose log says more", Code.INTERNAL)
        raise
    finally:
        if record.stream is not None:
            _record_stream(record, record.stream, loop.time() - started_s)
        else:
            log_refused(
                record.frontend,
                user=record.user,
                peer=record.peer,
                agent=record.agent,
                target=str(record.target or record.asked),
                refused=refused,
            )


def _record_stream(record: OpenRecord, stream: Stream, duration_s: float) -> None:
    counts, error = stream.statistics(), stream.error
    reason, text = ("closed", "") if error is None else (error.code.label, str(error))
    log_stream(
        record.frontend,
        user=record.user,
        peer=record.peer,
        agent=record.agent,
        target=stream.target,
        resolved=stream.resolved_address,
        result=SpliceResult(counts.bytes_sent, counts.bytes_received, duration_s, reason, text),
    )


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
        target=target[:MAX_TARGET_CHARS],
        code=refused.code.label,
        reason=str(refused),
    )
