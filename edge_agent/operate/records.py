"""Writes the box's own audit record of each stream: a start before its first byte, an end, or why it was refused."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from edge_agent.operate.traffic import OTHER, TCP, Traffic, bytes_of
from tunnel.aio.exits.acceptor import StreamAcceptor
from tunnel.aio.operate.audit import Audit
from tunnel.aio.operate.recorded_command import recorded_principal
from tunnel.aio.sessions.incoming import IncomingStream
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused, StreamError
from tunnel.core.wire.target import ServiceTarget, Target

FRONTEND = "tunnel"
"""The front end in the records of all that comes down the tunnel."""
TRACE_BYTES = 8


def new_trace_id() -> str:
    """Returns a random name for a connection that begins here, which all lines about it carry on both sides."""
    return os.urandom(TRACE_BYTES).hex()


class RecordedStreams:
    """Serves the streams that the cloud opens, and records each."""

    def __init__(
        self, acceptor: StreamAcceptor, audit: Audit, traffic: Traffic, records_itself: Callable[[Target], bool]
    ) -> None:
        """Takes what serves and what counts.

        Args:
            acceptor: serves the streams.
            audit: takes the records.
            traffic: counts the streams.
            records_itself: returns whether what serves a target records more closely what is done with it.
        """
        self._acceptor = acceptor
        self._audit = audit
        self._traffic = traffic
        self._records_itself = records_itself

    async def accept(self, incoming: IncomingStream) -> None:
        """Serves one stream, from its request to its end.

        Raises:
            StreamError: it may not be connected, or cannot, or nobody waits for it any more.
        """
        record = _Record(self._audit, self._traffic, incoming, quiet=self._records_itself(incoming.target))
        try:
            self._audit.admit()
            await self._acceptor.serve(incoming, lambda stream: record.opened(stream, self._acceptor))
        except BaseException as error:
            record.failed(_reason(error))
            raise
        finally:
            record.close()


class _Record:
    """The records of one stream."""

    def __init__(self, audit: Audit, traffic: Traffic, incoming: IncomingStream, *, quiet: bool) -> None:
        self._audit = audit
        self._traffic = traffic
        self._incoming = incoming
        self._quiet = quiet
        self._stream: Stream | None = None
        self._began_s = asyncio.get_running_loop().time()

    def opened(self, stream: Stream, acceptor: StreamAcceptor) -> None:
        self._stream = stream
        self._traffic.began(service_of(self._incoming.target), stream)
        if not self._quiet:
            rule = acceptor.rule_of(self._incoming.target, stream.resolved_address, self._incoming.principal)
            self._audit.record("open", **self._about(), rule=rule or None, resolved=stream.resolved_address or None)

    def failed(self, reason: StreamError) -> None:
        if self._stream is not None:
            self._stream.reset(reason.code, reason.told)
            return
        # Of what is asked for by a name, only what was opened is known to be the box's own word.
        asked = OTHER if isinstance(self._incoming.target, ServiceTarget) else TCP
        self._traffic.refused[asked, reason.code] += 1
        self._audit.record("refused", **self._about(), seconds=self._seconds(), **why(reason))

    def close(self) -> None:
        if self._stream is None:
            return
        self._traffic.ended(self._stream)
        if not self._quiet:
            self._audit.record("end", **self._about(), **end_of(self._stream), seconds=self._seconds())

    def _about(self) -> dict[str, object]:
        incoming = self._incoming
        return {
            "trace_id": incoming.trace_id,
            "frontend": FRONTEND,
            **recorded_principal(incoming.principal),
            "target": str(incoming.target),
        }

    def _seconds(self) -> float:
        return round(asyncio.get_running_loop().time() - self._began_s, 3)


def service_of(target: Target) -> str:
    """Returns the name that a stream which is served is counted under."""
    return target.name if isinstance(target, ServiceTarget) else TCP


def why(refused: StreamError) -> dict[str, object]:
    """Returns what the record of a refusal says of its cause."""
    return {"code": refused.fault.code, "outcome": refused.code.label, "reason": str(refused)}


def end_of(stream: Stream) -> dict[str, object]:
    """Returns what the end record of a stream says of how it went."""
    error = stream.error
    to_agent, from_agent = bytes_of(stream)
    return {
        "resolved": stream.resolved_address or None,
        "bytes_to_agent": to_agent,
        "bytes_from_agent": from_agent,
        "code": None if error is None else error.fault.code,
        "reason": "closed" if error is None else error.code.label,
        "text": "" if error is None else str(error),
    }


# Internal


def _reason(error: BaseException) -> StreamError:
    """Returns the error to tell of a stream that was not served to its end, in words for both sides."""
    if isinstance(error, StreamError):
        return error
    if isinstance(error, asyncio.CancelledError):
        return OpenRefused("the other side gave up, or this end is stopping", Code.CANCELLED)
    return OpenRefused("a fault at the far end, whose log says more", Code.INTERNAL)
