"""tunnel.core.streams.stream: it has finished when both halves have."""

from __future__ import annotations

import pytest

from tunnel.core.streams.budget import Budget
from tunnel.core.streams.stream import CoreStream
from tunnel.core.streams.window import ReceiveWindow
from tunnel.core.wire.errors import LocalProtocolError
from tunnel.core.wire.frames import TrafficClass
from tunnel.core.wire.target import TcpTarget


def _stream() -> CoreStream:
    window = ReceiveWindow(100, 100, Budget(total_bytes=1000))
    return CoreStream(1, TcpTarget("h", 1), local=True, hint=TrafficClass.BULK, window=window, deadline_s=9.0)


def test_it_is_opened_once_and_both_halves_with_it() -> None:
    stream = _stream()
    assert not stream.opened
    stream.open_up()
    assert (stream.opened, stream.send.takes_bytes, stream.receive.more_may_come) == (True, True, True)
    with pytest.raises(LocalProtocolError):
        stream.open_up()


@pytest.mark.parametrize("receive_first", [False, True])
def test_it_has_finished_when_both_halves_have(*, receive_first: bool) -> None:
    stream = _stream()
    stream.open_up()

    def end_receiving() -> None:
        stream.receive.push(b"12")
        stream.receive.finish()
        stream.receive.window.consume(2, 0.0, 0.1)

    def end_sending() -> None:
        stream.send.finish()
        stream.send.end_taken()
        stream.send.end_arrived()

    for end in (end_receiving, end_sending) if receive_first else (end_sending, end_receiving):
        assert not stream.finished
        end()
    assert stream.finished
    assert (stream.statistics().bytes_received, stream.statistics().window_bytes) == (2, 100)
