"""tunnel.core.streams.chunks: small chunks are joined, bytes and their order stay."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.core.streams.chunks import RUN_CHUNKS, SMALL_BYTES, Chunk, append_chunk


def _fill(chunks: list[bytes], sizes: list[int]) -> bytes:
    run, number, whole = 0, 0, b""
    for size in sizes:
        data = bytes((number + index) % 251 for index in range(size))
        number += size
        whole += data
        run = append_chunk(chunks, data, run)
    return whole


@pytest.mark.parametrize("size", [1, 2, 10, 100])
def test_small_chunks_cost_little_more_than_their_bytes(size: int) -> None:
    chunks: list[bytes] = []
    run = 0
    for _ in range(65536 // size):
        run = append_chunk(chunks, b"x" * size, run)
    cost = sum(sys.getsizeof(chunk) + 8 for chunk in chunks)
    assert cost < 2 * 65536 + RUN_CHUNKS * 50


def test_large_chunks_are_kept_as_they_are() -> None:
    chunks: list[bytes] = []
    data = [b"x" * SMALL_BYTES for _ in range(3 * RUN_CHUNKS)]
    run = 0
    for one in data:
        run = append_chunk(chunks, one, run)
    assert run == 0
    assert all(kept is given for kept, given in zip(chunks, data, strict=True))


def test_no_joined_chunk_is_longer_than_a_frame() -> None:
    chunks: list[bytes] = []
    _fill(chunks, [SMALL_BYTES - 1] * 4 * RUN_CHUNKS)
    assert max(map(len, chunks)) <= 64 * 1024


@given(st.lists(st.tuples(st.integers(1, 600), st.booleans()), max_size=400))
def test_bytes_stay_in_order_whatever_is_taken_between(steps: list[tuple[int, bool]]) -> None:
    chunks: list[Chunk] = []
    run, taken, whole = 0, b"", b""
    for number, (size, take) in enumerate(steps):
        data = bytes([number % 251]) * size
        whole += data
        run = append_chunk(chunks, data, run)
        if take:
            taken += chunks.pop(0)
    assert taken + b"".join(chunks) == whole
