"""SIGTERM: no new opens, what is open may end, exit 0; a second one forces it."""

from __future__ import annotations

import signal
import socket

import pytest

from tests.support.connect_client import ConnectRefused, ends_in_reset
from tests.support.transfers import Transfer
from tests.support.tunnel import Tunnel, exchange, wait_until

MIB = 1024 * 1024


@pytest.mark.parametrize("side", ["agent", "server"])
def test_an_idle_daemon_stops_at_once(own: Tunnel, side: str) -> None:
    daemon = own.box.agent if side == "agent" else own.cluster.server
    assert daemon.stop(5) == 0
    assert "STOPPING=1" in daemon.notify.states


@pytest.mark.parametrize("side", ["agent", "server"])
def test_an_open_stream_may_end_but_no_new_one_begins(own: Tunnel, side: str) -> None:
    daemon = own.box.agent if side == "agent" else own.cluster.server
    with own.dial("source") as bulk, own.dial("echo") as sock:
        assert exchange(sock) == b"ping"
        transfer = Transfer(bulk, 32 * MIB)
        wait_until(lambda: transfer.moved_bytes > 0, "the transfer to begin")
        daemon.send(signal.SIGTERM)
        wait_until(lambda: "STOPPING=1" in daemon.notify.states, "STOPPING=1")
        with pytest.raises((ConnectRefused, OSError)):
            own.connect("echo").close()
        transfer.result()
        assert exchange(sock, b"still") == b"still"
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(1) == b""
    assert daemon.wait(10) == 0


@pytest.mark.parametrize("side", ["agent", "server"])
def test_a_second_signal_forces_it(own: Tunnel, side: str) -> None:
    daemon = own.box.agent if side == "agent" else own.cluster.server
    with own.dial("echo") as sock:
        assert exchange(sock) == b"ping"
        daemon.send(signal.SIGTERM)
        wait_until(lambda: "STOPPING=1" in daemon.notify.states, "STOPPING=1")
        assert daemon.running
        daemon.send(signal.SIGTERM)
        daemon.wait(5)
        if side == "server":
            assert ends_in_reset(sock)
