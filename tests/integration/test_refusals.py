"""What cannot be opened is refused in time, with a text that says why, on both sides."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tests.support.connect_client import ConnectRefused, connect_through, ends_in_reset
from tests.support.targets import refusing_port, silent_port
from tests.support.tunnel import BOX, Tunnel, exchange, tunnel, wait_until
from tests.support.waits import sooner_than

DEADLINE_S = 3
DEFAULT_DEADLINE_S = 10
"""What a dial may take where the configuration says nothing."""


@pytest.fixture(scope="module")
def open_box() -> Iterator[Tunnel]:
    """A box that allows its whole loopback, and a second that is joined but never there."""
    with tunnel(["echo"], allow=["127.0.0.1:*"], server={"dial_timeout_s": DEADLINE_S}) as made:
        made.cluster.join("box-8", allow=["127.0.0.1:*"])
        yield made


def refusal(made: Tunnel, target: str) -> ConnectRefused:
    with pytest.raises(ConnectRefused) as caught:
        made.cluster.dial(target).close()
    return caught.value


def test_a_target_that_the_box_does_not_allow(shared: Tunnel) -> None:
    refused = refusal(shared, f"{BOX}:1")
    assert refused.status == 403
    assert "127.0.0.1:1" in refused.reason
    shared.box.agent.wait_for_log("127.0.0.1:1")
    shared.cluster.server.wait_for_log("127.0.0.1:1")


def test_a_host_behind_the_box_that_it_does_not_allow(shared: Tunnel) -> None:
    refused = refusal(shared, f"192.0.2.7.{BOX}.longline:80")
    assert refused.status == 403
    assert "192.0.2.7" in refused.reason


def test_an_unknown_agent(shared: Tunnel) -> None:
    refused = refusal(shared, "no-such-box:22")
    assert refused.status == 404
    assert "no-such-box" in refused.reason


def test_an_agent_that_is_away(open_box: Tunnel) -> None:
    with sooner_than(DEFAULT_DEADLINE_S, "the answer"):
        refused = refusal(open_box, "box-8:22")
    assert refused.status == 503
    assert "box-8" in refused.reason


def test_a_port_that_refuses(open_box: Tunnel) -> None:
    port = refusing_port()
    refused = refusal(open_box, f"{BOX}:{port}")
    assert refused.status == 502
    assert "refused" in refused.reason
    assert str(port) in refused.reason


@pytest.mark.e2e
def test_an_address_that_never_answers(open_box: Tunnel) -> None:
    with silent_port() as port:
        start = time.monotonic()
        with sooner_than(DEFAULT_DEADLINE_S, "the answer"):
            refused = refusal(open_box, f"{BOX}:{port}")
        assert refused.status == 504
        assert time.monotonic() - start > DEADLINE_S - 1
        with open_box.dial("echo") as sock:
            assert exchange(sock) == b"ping"


def test_a_silent_dial_delays_nobody_and_is_given_up_with_its_client() -> None:
    with tunnel(["echo"], allow=["127.0.0.1:*"]) as made, silent_port() as port:
        with made.dial("echo") as sock:
            assert exchange(sock) == b"ping"
        before = made.box.agent.descriptors()
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(20)]
        try:
            with sooner_than(DEFAULT_DEADLINE_S, "all of it"):
                for sock in waiting:
                    sock.connect(str(made.cluster.unix_socket))
                    sock.sendall(f"CONNECT {BOX}:{port} HTTP/1.1\r\nHost: {BOX}\r\n\r\n".encode())
                wait_until(lambda: made.box.agent.descriptors() >= before + 10, "the dials")
                with made.dial("echo") as sock:
                    assert exchange(sock) == b"ping"
                for sock in waiting:
                    sock.close()
                wait_until(lambda: made.box.agent.descriptors() < before + 5, "the dials to be given up")
        finally:
            for sock in waiting:
                sock.close()


def test_a_forward_that_cannot_be_opened_ends_in_a_reset() -> None:
    with tunnel(["echo"]) as made:
        made.targets["echo"].stop()
        with made.dial("echo") as sock:
            assert ends_in_reset(sock)


@pytest.mark.parametrize("target", ["box-7", "box-7:99999", "box-7:0", "a b:22", ":22"])
def test_a_target_that_is_none(shared: Tunnel, target: str) -> None:
    assert refusal(shared, target).status in (400, 404)


def test_over_tls_a_user_certificate_is_needed(shared: Tunnel) -> None:
    target = f"{BOX}:{shared.targets['echo'].port}"
    with shared.cluster.dial_tls(target) as sock:
        assert exchange(sock) == b"ping"
    anonymous = shared.cluster.operator_tls(certificate=False)
    with pytest.raises((ConnectRefused, OSError)) as caught:
        connect_through(("127.0.0.1", shared.cluster.connect_port), target, tls=anonymous).close()
    if isinstance(caught.value, ConnectRefused):
        assert caught.value.status == 407
