"""Answers requests for recordings: the list of them, or one of them as it is in its file."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime

from edge_agent.hostkubelet.recordings import NotRecorded, Recorded, Recordings
from edge_agent.hostkubelet.status import JSON_TYPE, KubeletError
from edge_agent.hostkubelet.units import kubernetes_time
from tunnel.aio.http.http1 import ServerConnection
from tunnel.core.wire.faults import RECORDING_UNUSABLE

ASCIICAST_TYPE = ("content-type", "application/x-asciicast")
CHUNK_BYTES = 64 * 1024
MAX_LISTED = 5000
"""The most recordings of a list, which are the last ones."""


class RecordingBroken(Exception):
    """A recording cannot be read any further. The answer has begun already."""


async def send_list(connection: ServerConnection, recordings: Recordings, begin: Callable[[], None]) -> None:
    """Answers with a JSON document of all recordings, the oldest first; `begin` is called before the first byte.

    Raises:
        KubeletError: they cannot be read.
    """
    try:
        found = await recordings.listed()
    except NotRecorded as error:
        raise KubeletError(503, f"the recordings of this box cannot be read: {error}", RECORDING_UNUSABLE) from error
    body = {"recordings": [_shown(one) for one in found[-MAX_LISTED:]]}
    begin()
    await connection.respond(200, [JSON_TYPE], json.dumps(body).encode())


async def send_recording(
    connection: ServerConnection,
    recordings: Recordings,
    number: str,
    begin: Callable[[], None],
    sent: Callable[[int], None],
) -> None:
    """Answers with a recording, as far as it is written now.

    Args:
        connection: the connection to the client.
        recordings: where they are kept.
        number: the id of the recording.
        begin: is called before the first byte.
        sent: is told how many bytes went out each time.

    Raises:
        KubeletError: there is none of that name, or it cannot be read.
        RecordingBroken: it cannot be read any further.
    """
    try:
        fd = await recordings.opened(number)
    except NotRecorded as error:
        raise KubeletError(503, f"the recording cannot be read: {error}", RECORDING_UNUSABLE) from error
    if fd is None:
        raise KubeletError(404, f'this box has no recording "{number[:64]}"', RECORDING_UNUSABLE)
    try:
        begin()
        await connection.start(200, [ASCIICAST_TYPE])
        while chunk := await recordings.read(fd, CHUNK_BYTES):
            await connection.send(chunk)
            sent(len(chunk))
        await connection.finish()
    except NotRecorded as error:
        raise RecordingBroken(str(error)) from error
    finally:
        os.close(fd)


def _shown(one: Recorded) -> dict[str, object]:
    header = one.header
    return {
        "id": one.id,
        "began": kubernetes_time(datetime.fromtimestamp(header.began, UTC)),
        "seconds": one.seconds,
        "bytes": one.bytes,
        "columns": header.columns,
        "rows": header.rows,
        "title": header.title,
        "command": header.command,
    }
