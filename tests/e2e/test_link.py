"""The link at its worst: fifty cuts, black holes, and an outage that is longer than the resume window."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.connect_client import ends_in_reset
from tests.support.relay_pipe import Shape
from tests.support.site import Site
from tests.support.transfers import Chatter, Transfer, cut_by_progress
from tests.support.tunnel import BOX, Tunnel, exchange, tunnel, wait_until
from tests.support.waits import scaled_s, sooner_than

MIB = 1024 * 1024
CUTS = 50
SIZE_BYTES = 200 * MIB
RATE = Shape(rate_bytes_s=40 * MIB)
"""So that cuts fall into the transfer, and not only into what buffers hold."""
DIAL_S = 10
"""Within which a dial is answered; what is never answered, its client gives up after 60 s."""
NOTICED_S = 25
"""Within which a silent link is given up: 15 s, and what a busy machine adds. TCP itself takes a quarter of an hour."""
SILENCE_S = 10
"""The least that it takes to give a link up by its silence; a cut that is told of costs a redial."""
WINDOW_S = 5


@pytest.fixture(scope="module")
def plain() -> Iterator[Tunnel]:
    with tunnel(["echo"]) as made:
        yield made


@pytest.mark.timeout(240)
@pytest.mark.parametrize("upload", [False, True], ids=["download", "upload"])
def test_fifty_cuts_in_a_transfer(upload: bool) -> None:
    kind = "count" if upload else "source"
    with tunnel(["echo", kind]) as made, made.dial("echo", timeout_s=30) as chat, made.dial(kind, timeout_s=60) as sock:
        made.link.shape(up=RATE, down=RATE)
        with Chatter(chat) as chatter:
            transfer = Transfer(sock, SIZE_BYTES, upload=upload)
            cut_by_progress(made.link, transfer, CUTS, SIZE_BYTES)
            transfer.result()
        assert chatter.slowest_s < scaled_s(SILENCE_S), "the link was found to be gone by its silence"


@pytest.mark.timeout(240)
def test_fifty_cuts_under_an_open_shell(shared: Site) -> None:
    with shared.shell("exec", "-it", BOX, "--", "sh") as shell:
        shell.type("echo begin $$\n")
        pid = shell.expect(r"begin (\d+)").group(1)
        for number in range(CUTS):
            assert shared.link.cut() >= 1
            shell.type(f"echo cut {number} $$\n")
            assert shell.expect(rf"cut {number} (\d+)\s", 15).group(1) == pid
            wait_until(lambda: shared.link.counters()["open"] >= 1, "the next carrier")
        shell.type("exit\n")
        assert shell.wait() == 0


@pytest.mark.timeout(120)
def test_a_black_hole_is_noticed_on_both_sides_and_resumed_after(plain: Tunnel) -> None:
    server, agent = plain.cluster.server, plain.box.agent
    with plain.dial("echo", timeout_s=60) as sock:
        assert exchange(sock) == b"ping"
        logged = {daemon: len(daemon.log_text()) for daemon in (server, agent)}
        plain.link.black_hole()
        try:
            sock.sendall(b"into the dark")
            for daemon in (server, agent):
                daemon.wait_for_log("disconnected", NOTICED_S, after=logged[daemon])
        finally:
            plain.link.heal()
        assert sock.recv(13) == b"into the dark"
        assert exchange(sock, b"and on") == b"and on"


@pytest.mark.timeout(120)
def test_opens_during_a_black_hole_are_answered(plain: Tunnel) -> None:
    plain.link.black_hole()
    try:
        with sooner_than(2 * DIAL_S, "the answer"), plain.dial("echo", timeout_s=60) as sock:
            sock.sendall(b"anyone?")
            assert ends_in_reset(sock)
    finally:
        plain.link.heal()
    wait_until(lambda: works(plain), "the tunnel to work again", 40)


@pytest.mark.timeout(120)
def test_an_outage_longer_than_the_window_is_a_reset_at_both_ends() -> None:
    with tunnel(["echo"]) as made:
        made.cluster.server.stop()
        made.cluster.configure({"tunnel": {"resume_window_s": WINDOW_S}})
        made.cluster.start()
        wait_until(lambda: works(made), "the tunnel to work")
        with made.dial("echo", timeout_s=60) as sock:
            assert exchange(sock) == b"ping"
            made.targets["echo"].endings.clear()
            made.link.refuse()
            made.link.cut()
            start = time.monotonic()
            assert ends_in_reset(sock)
            assert time.monotonic() - start > WINDOW_S - 1
        endings = made.targets["echo"].endings
        wait_until(lambda: endings == ["ConnectionResetError"], f"a reset at the target, not {endings}", 20)
        made.link.heal()
        wait_until(lambda: works(made), "the tunnel to work again", 40)


def works(made: Tunnel) -> bool:
    """Whether a new connection gets through."""
    try:
        with made.dial("echo", timeout_s=12) as sock:
            return exchange(sock) == b"ping"
    except OSError:
        return False
