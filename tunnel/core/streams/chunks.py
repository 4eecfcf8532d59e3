"""Queues of byte chunks that cannot be made to cost far more memory than the bytes in them."""

from __future__ import annotations

from collections import deque
from typing import TypeVar

SMALL_BYTES = 512
"""Below this what Python adds to a chunk, about 50 bytes, begins to tell."""
RUN_CHUNKS = 64
"""So many small chunks in a row are joined. Without it a window of 256 KiB filled by twos would take 7 MB."""

Chunk = bytes | memoryview
ChunkT = TypeVar("ChunkT", bytes, Chunk)


def append_chunk(chunks: deque[ChunkT], data: bytes, small_run: int) -> int:
    """Appends a chunk; `small_run` and the result count the small ones at the end of the queue."""
    chunks.append(data)
    if len(data) >= SMALL_BYTES:
        return 0
    small_run += 1
    if small_run < RUN_CHUNKS:
        return small_run
    # Fewer may be left when some of the run were taken meanwhile.
    tail = [chunks.pop() for _ in range(min(RUN_CHUNKS, len(chunks)))]
    chunks.append(b"".join(reversed(tail)))
    return 0
