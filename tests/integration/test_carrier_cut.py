"""Links die, sessions don't: the carrier is cut again and again, and every connection goes on with the same bytes."""

from __future__ import annotations

import time

import pytest

from tests.support.relay import Cut
from tests.support.relay_pipe import Shape
from tests.support.transfers import Chatter, Transfer, cut_by_progress
from tests.support.tunnel import Tunnel, exchange, wait_until
from tests.support.waits import scaled_s, sooner_than

MIB = 1024 * 1024
SIZE_BYTES = 48 * MIB
RATE = Shape(rate_bytes_s=40 * MIB)
"""So that cuts fall into the transfer, and not only into what buffers hold."""
SILENCE_S = 10
"""The least that it takes to give a link up by its silence; a cut that is told of costs a redial."""


@pytest.fixture(scope="module", autouse=True)
def limited(shared: Tunnel) -> None:
    shared.link.shape(up=RATE, down=RATE)


@pytest.mark.parametrize("upload", [False, True], ids=["download", "upload"])
@pytest.mark.parametrize("how", ["rst", "fin"])
def test_cut_during_a_transfer_and_an_open_echo(shared: Tunnel, how: Cut, upload: bool) -> None:
    with shared.dial("echo") as chat, shared.dial("count" if upload else "source", timeout_s=30) as sock:
        with Chatter(chat) as chatter:
            transfer = Transfer(sock, SIZE_BYTES, upload=upload)
            cut_by_progress(shared.link, transfer, 8, SIZE_BYTES, how)
            transfer.result()
            lines = chatter.lines
            wait_until(lambda: chatter.lines > lines, "the echo to go on")
    assert chatter.slowest_s < scaled_s(SILENCE_S), "the link was found to be gone by its silence"


def test_an_idle_connection_outlives_its_carrier(shared: Tunnel) -> None:
    with shared.dial("echo") as sock:
        assert exchange(sock) == b"ping"
        shared.link.cut()
        with sooner_than(SILENCE_S, "the echo"):
            assert exchange(sock, b"again") == b"again"


def test_what_is_opened_while_the_link_is_down_waits_for_it(shared: Tunnel) -> None:
    shared.link.refuse()
    shared.link.cut()
    try:
        with shared.dial("echo") as sock:
            sock.sendall(b"early")
            shared.link.heal()
            assert sock.recv(5) == b"early"
    finally:
        shared.link.heal()


def test_a_frozen_link_delays_and_loses_nothing(shared: Tunnel) -> None:
    with shared.dial("source") as sock, shared.dial("echo") as chat:
        transfer = Transfer(sock, SIZE_BYTES)
        wait_until(lambda: transfer.moved_bytes > MIB, "the transfer to begin")
        shared.link.freeze()
        chat.sendall(b"x")
        time.sleep(1)
        shared.link.heal()
        assert chat.recv(1) == b"x"
        transfer.result()
