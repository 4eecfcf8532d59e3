"""Keeps what came of the streams that an acceptor serves, as the daemons' own recorders do."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from tunnel.aio.exits.acceptor import StreamAcceptor
from tunnel.aio.sessions.incoming import Acceptor, IncomingStream
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import Code, OpenRefused, StreamError

Record = MutableMapping[str, Any]


def kept(acceptor: StreamAcceptor, records: list[Record]) -> Acceptor:
    """Serves each stream with `acceptor`, and appends what came of it to `records`."""

    async def accept(incoming: IncomingStream) -> None:
        streams: list[Stream] = []
        record: Record = {
            "user": str(incoming.principal),
            "trace_id": incoming.trace_id,
            "target": str(incoming.target),
        }
        try:
            await acceptor.serve(incoming, streams.append)
        except BaseException as error:
            reason = _reason(error)
            if streams:
                streams[0].reset(reason.code, reason.told)
            else:
                outcome = {"outcome": reason.code.label, "code": reason.fault.code, "reason": str(reason)}
                records.append({"event": "refused", **record, **outcome})
            raise
        finally:
            if streams:
                records.append({"event": "stream", **record, **_end(streams[0])})

    return accept


def _end(stream: Stream) -> Record:
    counts, error = stream.statistics(), stream.error
    return {
        "resolved": stream.resolved_address,
        "bytes_in": counts.bytes_received,
        "bytes_out": counts.bytes_sent,
        "ended": "closed" if error is None else f"{error.code.label}: {error}",
    }


def _reason(error: BaseException) -> StreamError:
    if isinstance(error, StreamError):
        return error
    if isinstance(error, asyncio.CancelledError):
        return OpenRefused("the other side gave up, or this end is stopping", Code.CANCELLED)
    return OpenRefused("a fault at the far end, whose log says more", Code.INTERNAL)
