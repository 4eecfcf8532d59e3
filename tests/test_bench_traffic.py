"""benches/traffic.py: a connection that dies amid a measurement spoils it aloud, and is never a rate of nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from benches.traffic import Copy, Pings, TrafficDied


@contextmanager
def _service(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A service for one connection; closed when `serve` returns."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            with listener.accept()[0] as sock:
                serve(sock)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10.0)


def _source(limit_bytes: int) -> Callable[[socket.socket], None]:
    def serve(sock: socket.socket) -> None:
        sock.recv(100)
        left = limit_bytes
        try:
            while left > 0:
                left -= sock.send(bytes(min(left, 65536)))
        except OSError:
            pass

    return serve


def test_a_copy_that_lasts_has_a_rate() -> None:
    with _service(_source(1 << 40)) as port, Copy(port) as copy:
        assert copy.rate(0.0, 0.2) > 0


def test_a_copy_that_ends_early_is_told_when_its_rate_is_asked_for_and_at_the_end() -> None:
    with _service(_source(100_000)) as port:
        with pytest.raises(TrafficDied, match=f"copy over port {port}: the connection ended"), Copy(port) as copy:
            copy.rate(0.0, 0.3)
        with pytest.raises(TrafficDied):
            copy.rate(0.0, 0.3)


def _mute(sock: socket.socket) -> None:
    sock.recv(100)


def test_keystrokes_without_an_answer_are_told_at_the_end() -> None:
    with _service(_mute) as port, pytest.raises(TrafficDied, match="pings over port"), Pings(port) as pings:
        pings._thread.join(10.0)


def _fail_beside(copy: Copy) -> None:
    with copy:
        copy._thread.join(10.0)
        raise ZeroDivisionError


def test_what_went_wrong_inside_is_not_hidden_by_it() -> None:
    with _service(_source(10)) as port, pytest.raises(ZeroDivisionError):
        _fail_beside(Copy(port))
