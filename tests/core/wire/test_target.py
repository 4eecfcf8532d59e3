"""tunnel.core.wire.target: how targets are written for people."""

from __future__ import annotations

import pytest

from tunnel.core.wire.target import ServiceTarget, Target, TcpTarget, UnknownTarget


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (TcpTarget("10.1.0.9", 80), "10.1.0.9:80"),
        (TcpTarget("db.local", 5432), "db.local:5432"),
        (TcpTarget("fd00::1", 22), "[fd00::1]:22"),
        (ServiceTarget("longline/kubelet"), "longline/kubelet"),
        (UnknownTarget(), "(a kind of target that is not known here)"),
    ],
)
def test_written_as_people_write_it(target: Target, text: str) -> None:
    assert str(target) == text
