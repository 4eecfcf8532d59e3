"""Queues of byte chunks that cannot be made to cost far more memory than the bytes in them.

They are lists: an empty deque takes 760 bytes, and a stream has four such queues, nearly always with one chunk or none.
To take the first of a thousand chunks moves 8 kB, which is less than what its bytes cost anyhow.
"""

from __future__ import annotations

from typing import TypeVar

SMALL_BYTES = 512
"""Chunks of fewer bytes are small: what Python adds to a chunk, about 50 bytes, begins to tell."""
RUN_CHUNKS = 64
"""How many small chunks in a row are joined. If none were, a window of 256 KiB filled by twos would take 7 MB."""

Chunk = bytes | memoryview
ChunkT = TypeVar("ChunkT", bytes, Chunk)


def append_chunk(chunks: list[ChunkT], data: bytes, small_run: int) -> int:
    """Appends a chunk to a queue, and joins a long run of small ones at its end.

    `small_run` is how many small chunks stand at the end of the queue; their number after this is returned.
    """
    chunks.append(data)
    if len(data) >= SMALL_BYTES:
        return 0
    small_run += 1
    if small_run < RUN_CHUNKS:
        return small_run
    # Fewer may be left when some of the run were taken meanwhile.
    chunks[-RUN_CHUNKS:] = [b"".join(chunks[-RUN_CHUNKS:])]
    return 0
