"""SPDY frames: what a client opens and sends arrives however it is cut, and hostile bytes cost nothing."""

from __future__ import annotations

import contextlib
import itertools
import os
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.spdy_client import PING, RST_STREAM, SYN_REPLY, SpdyClientFrames, control, data, frames_in
from tunnel.kubeapi.spdy import (
    MAX_CONTROL_BYTES,
    MAX_HEADERS_BYTES,
    DataReceived,
    GoneAway,
    Pinged,
    SpdyError,
    SpdyEvent,
    SpdyReceiver,
    SpdySender,
    Status,
    StreamOpened,
    StreamReset,
)
from tunnel.kubeapi.spdy_dictionary import DICTIONARY

ERROR = {"streamtype": "error", "port": "22", "requestid": "0"}
DATA = {"streamtype": "data", "port": "22", "requestid": "0"}


def conversation() -> bytes:
    """What a client may say, with every kind of frame in it."""
    frames = SpdyClientFrames()
    return b"".join(
        [
            frames.open(1, ERROR, finished=True),
            control(4, struct.pack(">III", 1, 4, 65536)),  # SETTINGS
            frames.open(3, DATA),
            control(8, struct.pack(">I", 3) + frames.headers({"more": "headers"})),  # HEADERS
            data(3, b"hello "),
            control(PING, struct.pack(">I", 7)),
            control(9, struct.pack(">II", 3, 65536)),  # WINDOW_UPDATE
            control(200, b"of a kind that nobody knows"),
            data(3, b"box", finished=True),
            control(RST_STREAM, struct.pack(">II", 3, 5)),
            frames.open(5, DATA),  # the compressor's state went on through the headers that were skipped
            control(7, struct.pack(">II", 0, 0)),  # GOAWAY
        ]
    )


def received(*parts: bytes) -> list[SpdyEvent]:
    receiver = SpdyReceiver()
    return [event for part in parts for event in receiver.receive(part)]


def joined(events: list[SpdyEvent]) -> list[SpdyEvent]:
    """With parts of the same data put together."""
    whole: list[SpdyEvent] = []
    for event in events:
        last = whole[-1] if whole else None
        if isinstance(event, DataReceived) and isinstance(last, DataReceived):
            whole[-1] = DataReceived(event.stream_id, last.data + event.data, event.finished)
        else:
            whole.append(event)
    return whole


SAID = [
    StreamOpened(1, ERROR, True),
    StreamOpened(3, DATA, False),
    DataReceived(3, b"hello ", False),
    Pinged(7),
    DataReceived(3, b"box", True),
    StreamReset(3),
    StreamOpened(5, DATA, False),
    GoneAway(),
]


def test_a_conversation() -> None:
    assert received(conversation()) == SAID


@given(st.lists(st.integers(0, len(conversation()))))
def test_any_cut_of_it(cuts: list[int]) -> None:
    said, places = conversation(), [0, *sorted(cuts), len(conversation())]
    parts = [said[start:end] for start, end in itertools.pairwise(places)]
    assert joined(received(*parts)) == SAID


@given(st.binary(max_size=200))
def test_rubbish_ends_in_an_error_or_in_nothing(rubbish: bytes) -> None:
    with contextlib.suppress(SpdyError):
        received(conversation()[:40], rubbish)


def test_data_is_not_waited_for_to_be_whole() -> None:
    head = data(3, b"")[:4] + (0xFFFFFF).to_bytes(4, "big")
    assert received(head + b"first") == [DataReceived(3, b"first", False)]


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (control(1, bytes(10), version=2), "version 2"),
        (control(1, b"")[:4] + (MAX_CONTROL_BYTES + 1).to_bytes(4, "big"), "is the limit"),
        (control(1, bytes(9)), "with 9 bytes"),
        (control(PING, b"\0"), "with 1 bytes"),
        (data(0, b"x"), "stream 0"),
        (SpdyClientFrames().open(2, DATA), "stream 2"),
        (control(1, struct.pack(">IIBB", 1, 0, 0, 0) + b"no zlib"), "cannot be unpacked"),
    ],
)
def test_what_is_refused(said: bytes, says: str) -> None:
    with pytest.raises(SpdyError, match=says):
        received(said)


def test_a_stream_is_opened_once() -> None:
    frames = SpdyClientFrames()
    with pytest.raises(SpdyError, match="stream 3 is opened after stream 3"):
        received(frames.open(3, DATA) + frames.open(3, DATA))


@pytest.mark.parametrize(
    "text",
    [
        b"\0\0",
        struct.pack(">I", 0xFFFFFFFF),
        struct.pack(">II", 1, 0xFFFFFFFF) + b"name",
        struct.pack(">III", 1, 0, 5) + b"four",
    ],
)
def test_headers_that_lie_about_their_length(text: bytes) -> None:
    block = SpdyClientFrames().block(text)
    with pytest.raises(SpdyError, match="end in the middle"):
        received(control(1, struct.pack(">IIBB", 1, 0, 0, 0) + block))


def test_a_bomb_is_not_unpacked() -> None:
    """16 KiB of zlib can stand for 16 MiB."""
    block = SpdyClientFrames().block(bytes(15 * 1024 * 1024))
    frame = control(1, struct.pack(">IIBB", 1, 0, 0, 0) + block)
    assert len(block) < MAX_CONTROL_BYTES
    tracemalloc.start()
    try:
        with pytest.raises(SpdyError, match=f"more than {MAX_HEADERS_BYTES} bytes"):
            received(frame)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1024 * 1024


def test_what_a_server_sends() -> None:
    sender = SpdySender()
    content = os.urandom(100)
    sent = bytearray(
        sender.reply(1)
        + sender.reply(3)
        + sender.data(3, content)
        + sender.data(3, b"", finished=True)
        + sender.reset(1, Status.REFUSED_STREAM)
        + sender.pong(9)
    )
    first, second, *rest = frames_in(sent)
    inflate = zlib.decompressobj(zdict=DICTIONARY)
    for reply, stream_id in ((first, 1), (second, 3)):
        assert (reply.kind, reply.stream_id) == (SYN_REPLY, stream_id)
        assert inflate.decompress(reply.content) == bytes(4)
    assert [(frame.kind, frame.stream_id, frame.finished) for frame in rest] == [
        (0, 3, False),
        (0, 3, True),
        (RST_STREAM, 1, False),
        (PING, 9, False),
    ]
    assert rest[0].content == content
    assert not sent
