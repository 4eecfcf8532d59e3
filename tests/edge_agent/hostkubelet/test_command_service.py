"""What whoever may ask for commands can make the service hold."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack, suppress

import pytest

from edge_agent.hostkubelet import command_service
from tests.support.waits import sooner_than


def test_a_request_that_comes_a_byte_now_and_then_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_service, "ASK_S", 0.3)
    ours, theirs = socket.socketpair()
    over = threading.Event()

    def drip() -> None:
        with suppress(OSError):
            socket.send_fds(theirs, [(1000).to_bytes(4, "big")], [0, 1, 2])
            while not over.wait(0.05):
                theirs.sendall(b"x")

    dripping = threading.Thread(target=drip)
    with ours, theirs, ExitStack() as pipes, sooner_than(5, "its end"):
        ours.settimeout(command_service.ASK_S)
        dripping.start()
        try:
            with pytest.raises(TimeoutError):
                command_service._read(ours, pipes)
        finally:
            over.set()
            dripping.join()
