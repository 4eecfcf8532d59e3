"""tunnel.core.wire.frame_text: every kind of frame is one line that shows nothing of what a stream carries."""

from __future__ import annotations

from typing import get_args

import pytest

from tunnel.core.wire import frames as f
from tunnel.core.wire.errors import Code
from tunnel.core.wire.frame_text import frame_text
from tunnel.core.wire.principal import Principal, PrincipalKind
from tunnel.core.wire.target import ServiceTarget, TcpTarget

ANN = Principal(kind=PrincipalKind.USER, name="ann")
TEXTS: list[tuple[f.Frame, str]] = [
    (f.Data(7, b"secret"), "DATA 7 6 bytes"),
    (f.Credit(7, 4096), "CREDIT 7 up to 4096"),
    (
        f.Open(7, TcpTarget("10.0.0.1", 22), deadline_ms=900, credit=64, principal=ANN, trace_id="ab12"),
        "OPEN 7 10.0.0.1:22 for user:ann, within 900 ms, credit 64, trace ab12",
    ),
    (
        f.Open(9, ServiceTarget("kubelet"), deadline_ms=1, credit=0, principal=ANN, early_data=b"secret"),
        "OPEN 9 kubelet for user:ann with 6 bytes, within 1 ms, credit 0, trace -",
    ),
    (f.Accept(7, "10.0.0.1:22", 64), "ACCEPT 7 10.0.0.1:22, credit 64"),
    (f.Accept(7, "", 64), "ACCEPT 7 -, credit 64"),
    (f.Fin(7), "FIN 7"),
    (f.Reset(7, Code.REFUSED, "nobody listens"), "RESET 7 refused: nobody listens"),
    (f.StopSending(7, Code.CANCELLED), "STOP_SENDING 7 cancelled"),
    (f.Ping(5), "PING 5"),
    (f.Pong(5), "PONG 5"),
    (f.Pong(5, 20_000), "PONG 5, may be silent for 20000 ms"),
    (f.GoAway(Code.SHUTTING_DOWN, "bye", 1000), "GOAWAY shutting_down: bye, come back after 1000 ms"),
]


@pytest.mark.parametrize(("frame", "text"), TEXTS)
def test_a_frame_as_a_line(frame: f.Frame, text: str) -> None:
    assert frame_text(frame) == text


def test_no_kind_is_left_out() -> None:
    assert {type(frame) for frame, _ in TEXTS} == set(get_args(f.Frame))
