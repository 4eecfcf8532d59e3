"""SIGTERM: no new opens, what is open may end, exit 0; a second one cuts that short, a third ends the process."""

from __future__ import annotations

import signal
import socket

import pytest

from tests.support.cluster import edit_toml
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
@pytest.mark.parametrize("end", ["of its time", "by a second signal"])
def test_what_outlives_the_drain_is_reset_at_both_ends(own: Tunnel, side: str, end: str) -> None:
    by_signal = end == "by a second signal"
    daemon, key, config = (
        (own.box.agent, "agent", own.box.config)
        if side == "agent"
        else (own.cluster.server, "server", own.cluster.config)
    )
    daemon.stop()
    edit_toml(config, {"drain_s": 60.0 if by_signal else 0.5})
    daemon.start().wait_ready()
    wait_until(lambda: works(own), f"the {key} to be back", 15)
    endings = own.targets["flood"].endings
    with own.dial("echo") as quiet, own.dial("flood") as busy:
        assert exchange(quiet) == b"ping"
        assert busy.recv(1000)
        daemon.send(signal.SIGTERM)
        if by_signal:
            wait_until(lambda: "STOPPING=1" in daemon.notify.states, "STOPPING=1")
            assert daemon.running
            daemon.send(signal.SIGTERM)
        assert daemon.wait(10) == (1 if by_signal else 0)
        # At once, and not when the other side no longer waits for the link to come back, 120 s later.
        for sock in (quiet, busy):
            sock.settimeout(5)
            assert ends_in_reset(sock)
    wait_until(lambda: endings and endings[-1] in ("ConnectionResetError", "BrokenPipeError"), f"a reset: {endings}")
    assert "Traceback" not in daemon.log_text()


@pytest.mark.parametrize("side", ["agent", "server"])
def test_signals_while_it_cleans_up_end_it_without_a_trace(own: Tunnel, side: str) -> None:
    daemon = own.box.agent if side == "agent" else own.cluster.server
    own.link.freeze()  # so that the last words wait for an answer
    daemon.send(signal.SIGTERM)
    wait_until(lambda: "STOPPING=1" in daemon.notify.states, "STOPPING=1")
    daemon.send(signal.SIGTERM)
    assert daemon.wait(3) == 1
    log = daemon.log_text()
    assert "signal" in log
    assert "Traceback" not in log
    assert "__del__" not in log


def works(made: Tunnel) -> bool:
    try:
        made.connect("echo").close()
    except (ConnectRefused, OSError):
        return False
    return True
