"""The short cut for window updates does what the library does, or leaves them to it."""

from __future__ import annotations

import struct

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection

from tunnel.aio.http.window_updates import take_window_updates


def update(stream_id: int, increment: int, *, length: int = 4, kind: int = 8) -> bytes:
    return struct.pack(">IBII", length << 8 | kind, 0, stream_id, increment)


@pytest.fixture
def h2() -> H2Connection:
    """A server's, with a stream 1."""
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    client.send_headers(1, [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")])
    server = H2Connection(H2Configuration(client_side=False))
    server.initiate_connection()
    server.receive_data(client.data_to_send())
    return server


def windows(h2: H2Connection) -> tuple[int, int]:
    return h2.outbound_flow_control_window, h2.streams[1].outbound_flow_control_window


def test_updates_of_connection_and_streams_are_added_up(h2: H2Connection) -> None:
    data = update(0, 10) + update(1, 3) + update(0, 5)
    assert take_window_updates(h2, memoryview(data)) == {0, 1}
    assert windows(h2) == (65535 + 15, 65535 + 3)


@pytest.mark.parametrize(
    "data",
    [
        update(0, 1)[:-1],
        update(0, 1) + b"\0",
        update(0, 0),
        update(3, 1),
        update(0, 1, length=5),
        update(0, 1, kind=6),
        update(0, 1 << 31),
        update(0, 2**31 - 1),
        update(1, 2**31 - 65535),
        update(0, 5) + update(1, 0),
    ],
)
def test_anything_else_is_left_as_it_is(h2: H2Connection, data: bytes) -> None:
    assert take_window_updates(h2, memoryview(data)) is None
    assert windows(h2) == (65535, 65535)


def test_what_stands_in_the_middle_of_a_frame_is_none(h2: H2Connection) -> None:
    ping = struct.pack(">HBBBI", 0, 8 + 13, 6, 0, 0)
    h2.receive_data(ping)
    assert take_window_updates(h2, memoryview(update(0, 1))) is None


def test_what_stands_in_a_header_block_is_none(h2: H2Connection) -> None:
    h2.receive_data(struct.pack(">HBBBI", 0, 0, 1, 0, 3))
    assert take_window_updates(h2, memoryview(update(0, 1))) is None
