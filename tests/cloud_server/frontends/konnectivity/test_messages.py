"""gRPC messages from pieces of any size."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_server.frontends.konnectivity.messages import (
    MAX_MESSAGE_BYTES,
    CallFailed,
    MessageReader,
    Status,
    framed,
    is_grpc,
    trailers,
)


@given(st.lists(st.binary(max_size=50), max_size=8), st.lists(st.integers(1, 30), max_size=200))
def test_any_split_gives_the_same_messages(messages: list[bytes], sizes: list[int]) -> None:
    wire = b"".join(map(framed, messages))
    reader, read = MessageReader(b""), []
    for size in [*sizes, len(wire) + 1]:
        read += reader.feed(wire[:size])
        wire = wire[size:]
    assert read == messages
    assert not reader.incomplete


def test_how_long_an_incomplete_message_is() -> None:
    reader = MessageReader(b"")
    reader.feed(bytes(3))
    assert reader.incomplete
    assert reader.wanted_bytes == 0
    reader.feed(b"\x01\x00" + b"x")
    assert reader.wanted_bytes == 256


def test_the_longest_message() -> None:
    longest = bytes(MAX_MESSAGE_BYTES)
    assert MessageReader(b"").feed(framed(longest)) == [longest]


@pytest.mark.parametrize("length", [MAX_MESSAGE_BYTES + 1, 2**32 - 1])
def test_a_message_that_is_too_long_is_refused_by_its_length_alone(length: int) -> None:
    with pytest.raises(CallFailed, match=str(length)) as refused:
        MessageReader(b"").feed(struct.pack(">BI", 0, length))
    assert refused.value.status is Status.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(
    ("encoding", "status"),
    [(b"", Status.INTERNAL), (b"identity", Status.INTERNAL), (b"gzip", Status.UNIMPLEMENTED)],
)
def test_compressed_messages_are_refused(encoding: bytes, status: Status) -> None:
    with pytest.raises(CallFailed) as refused:
        MessageReader(encoding).feed(b"\x01\x00\x00\x00\x01x")
    assert refused.value.status is status


def test_trailers() -> None:
    assert trailers(Status.OK, "") == [(b"grpc-status", b"0")]
    assert trailers(Status.INTERNAL, "100 % wrong") == [(b"grpc-status", b"13"), (b"grpc-message", b"100 %25 wrong")]


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        (b"application/grpc", True),
        (b"application/grpc+proto", True),
        (b"Application/gRPC; charset=utf-8", True),
        (b"application/grpc+json", False),
        (b"application/grpc-web", False),
        (b"text/plain", False),
        (b"", False),
    ],
)
def test_content_types(content_type: bytes, expected: bool) -> None:
    assert is_grpc(content_type) is expected
