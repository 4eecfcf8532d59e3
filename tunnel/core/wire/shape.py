"""Looks at the shape of a long message before it is parsed: of how many parts it is made (PROTO 2.6).

Parsing takes some 90 ns and 50 bytes for each field, however short. A mebibyte of empty frames is half a million of
them: 45 ms and 28 MB before the first bound could be checked. Here only lengths are read, of frames one by one, up to
the first frame too many.

It is done for every packet of a copy, so what is found often is matched by expressions, in C.
"""

from __future__ import annotations

import functools
import re
from itertools import repeat, takewhile

from protos import tunnel_pb2 as pb
from tunnel.core.wire.errors import RemoteProtocolError
from tunnel.core.wire.limits import KIB, MAX_FRAMES

UNLOOKED_BYTES = 8 * KIB
"""A message that is no longer has no more than MAX_FRAMES fields, of two bytes at least: it costs less than a look, and
is not given to `check_shape`.
"""
MAX_BESIDE_BYTES = 64 * KIB
"""The most bytes in a message beside the data in DATA frames: 32,768 fields of two bytes, which take some 3 ms."""
MAX_RUNS = 16
"""How many times fields of a packet other than frames are looked at, and how many of them each time. There are four."""

_VARINT = rb"[\x80-\xff]{0,9}[\x00-\x7f]"


def _tag(number: int, wire_type: int) -> bytes:
    return re.escape(bytes((number << 3 | wire_type,)))


_NUMBERS = re.compile(b"(?:[" + b"".join(_tag(one, 0) for one in range(1, 16)) + b"]" + _VARINT + b"){1,16}")
_PACKET = re.compile(_tag(pb.Envelope.PACKET_FIELD_NUMBER, 2) + b"(" + _VARINT + b")(?:" + _NUMBERS.pattern + b")?")
"""A packet, up to its first frame as ours have it: with its numbers in front."""
_FRAME = re.compile(_tag(pb.Packet.FRAMES_FIELD_NUMBER, 2) + b"(" + _VARINT + b")")
_DATA_FRAME = re.compile(
    _FRAME.pattern
    + (b"(?:" + _tag(pb.Frame.STREAM_ID_FIELD_NUMBER, 0) + _VARINT + b")?")
    + (_tag(pb.Frame.DATA_FIELD_NUMBER, 2) + b"(" + _VARINT + b")")
)
"""A frame that begins as all of ours with data do: with the stream's id, and the data."""


def check_shape(message: bytes) -> None:
    """Checks that a message is not made of too many parts. Whether they are right is seen when it is parsed.

    Raises:
        RemoteProtocolError: it has too many frames, or too much beside data.
    """
    frames, data_bytes = _count(message)
    if frames > MAX_FRAMES:
        raise RemoteProtocolError(f"packet of more than {MAX_FRAMES} frames")
    if len(message) - data_bytes > MAX_BESIDE_BYTES:
        raise RemoteProtocolError(f"message of more than {MAX_BESIDE_BYTES} bytes beside data")


def _count(message: bytes) -> tuple[int, int]:
    """Returns how many frames a packet has, and the bytes of data in them.

    Only the packet that a message begins with is looked into, up to the first thing in it that none of our builds
    writes. All that is behind counts as beside data.
    """
    frames = data_bytes = runs = 0
    head = _PACKET.match(message)
    if head is None:
        return 0, 0
    place = head.end()
    end = min(head.end(1) + _number(head[1]), len(message))
    while place < end and frames <= MAX_FRAMES:
        if found := _DATA_FRAME.match(message, place, end):
            count = _number(found[2])
            size = found.end() - place + count
            # Data that ends where its frame does: whatever stands there instead, it is no part that is parsed.
            if found.end(1) + _number(found[1]) == place + size <= end:
                # Frames of one copy begin with the same bytes, so those behind it are found without a match.
                places = range(place, min(end - size, place + MAX_FRAMES * size) + 1, size)
                alike = sum(takewhile(bool, map(message.startswith, repeat(found[0]), places)))
                frames, data_bytes, place = frames + alike, data_bytes + alike * count, place + alike * size
                continue
        if found := _FRAME.match(message, place, end):
            frames += 1
            place = found.end() + _number(found[1])
        elif (found := _NUMBERS.match(message, place, end)) and runs < MAX_RUNS:
            runs += 1
            place = found.end()
        else:
            break
    return frames, data_bytes


@functools.lru_cache(maxsize=1024)
def _number(varint: bytes) -> int:
    """Returns what a varint says. Frames of one copy are nearly all of one size, so most were asked for before."""
    return sum((byte & 0x7F) << 7 * place for place, byte in enumerate(varint))
