"""The targets behave as they say."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable

import pytest

from tests.support.targets import (
    BANNER,
    Target,
    TargetProcess,
    pattern,
    pattern_digest,
    receive_digest,
    refusing_port,
    silent_port,
)
from tests.support.waits import Deadline

Dial = Callable[[int], socket.socket]


def dial(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 10)


def ask(port: int, data: bytes) -> bytes:
    """Send, end, and read everything."""
    with dial(port) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while received := sock.recv(65536):
            answer += received
        return answer


def test_answers() -> None:
    with TargetProcess(["echo", "late-echo", "banner", "count", "close"]) as targets:
        ports = targets.ports
        assert ask(ports["echo"], b"abc") == b"abc"
        assert ask(ports["late-echo"], b"abc") == b"abc"
        assert ask(ports["banner"], b"abc") == BANNER + b"abc"
        assert ask(ports["close"], b"") == b"bye\n"
        sent = b"".join(pattern(3, 100_000))
        assert json.loads(ask(ports["count"], sent)) == [100_000, pattern_digest(3, 100_000)]


def test_the_source_sends_the_pattern() -> None:
    with Target("source") as target, dial(target.port) as sock:
        sock.sendall(b"7 1000001\n")
        assert receive_digest(sock) == (1_000_001, pattern_digest(7, 1_000_001))


def test_reset_is_a_reset() -> None:
    with Target("reset") as target, dial(target.port) as sock:
        sock.sendall(b"a")
        assert sock.recv(1) == b"!"
        sock.sendall(b"b")
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def test_a_stalled_service_takes_no_more_than_the_kernel_does() -> None:
    with Target("stalled", receive_buffer_bytes=65536) as target, dial(target.port) as sock:
        sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            sock.sendall(bytes(64 * 1024 * 1024))


def test_how_a_connection_ended_is_known() -> None:
    with Target("echo") as target:
        with dial(target.port) as sock:
            sock.sendall(b"a")
            assert sock.recv(1) == b"a"
            assert target.open == 1
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        target.stop()
        assert target.endings == ["ConnectionResetError"]
        assert target.open == 0


def test_a_silent_port_never_answers() -> None:
    with silent_port() as port, pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", port), 0.5)


def test_what_was_counted_is_known_after_a_hasty_close() -> None:
    with Target("count") as target:
        with dial(target.port) as sock:
            sock.sendall(b"".join(pattern(1, 5000)))
        deadline = Deadline(5)
        while not target.counted and not deadline.passed():
            time.sleep(0.01)
        assert target.counted == [(5000, pattern_digest(1, 5000))]


def test_nobody_listens_on_a_refusing_port() -> None:
    with pytest.raises(ConnectionRefusedError):
        dial(refusing_port())
