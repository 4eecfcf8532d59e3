"""Applies window updates past the library.

kubectl sends two for every 4 KiB that it has read. Those of 200 MB take the library a second, here a quarter of one.
"""

from __future__ import annotations

import struct
from collections import Counter

from h2.connection import H2Connection

_FRAME = struct.Struct(">IBII")
"""The layout of a window update: length and type together, flags, stream, increment."""
_LENGTH_AND_TYPE = 4 << 8 | 8
_MAX_WINDOW_BYTES = 2**31 - 1


def take_window_updates(h2: H2Connection, data: memoryview) -> set[int] | None:
    """Applies received bytes that are nothing but good window updates.

    Returns:
        The streams that may go on, 0 for all; None when there is anything else, or worse: nothing was applied then, and
        the library is to look at it.
    """
    buffer = h2.incoming_buffer
    if len(data) % _FRAME.size or buffer._data or buffer._headers_buffer:  # in the middle of something
        return None
    opened: Counter[int] = Counter()
    for kind, _, stream_id, increment in _FRAME.iter_unpack(data):
        if kind != _LENGTH_AND_TYPE or not increment or (stream_id and stream_id not in h2.streams):
            return None
        opened[stream_id] += increment
    streams = {stream_id: h2 if stream_id == 0 else h2.streams[stream_id] for stream_id in opened}
    windows = {stream_id: streams[stream_id].outbound_flow_control_window + more for stream_id, more in opened.items()}
    if any(window > _MAX_WINDOW_BYTES for window in windows.values()):
        return None
    for stream_id, window in windows.items():
        streams[stream_id].outbound_flow_control_window = window
    return set(opened)
