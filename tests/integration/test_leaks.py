"""After a thousand of each kind of close, the daemons hold what they held before."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable

import pytest

from tests.support.connect_client import ConnectRefused
from tests.support.tunnel import BOX, Tunnel, exchange, read_to_end, reset, wait_until

OPENS = 1000
AT_ONCE = 16


def client_closes(made: Tunnel) -> None:
    with made.dial("echo") as sock:
        assert exchange(sock) == b"ping"


def client_resets(made: Tunnel) -> None:
    sock = made.dial("echo")
    assert exchange(sock) == b"ping"
    reset(sock)


def target_closes(made: Tunnel) -> None:
    with made.dial("close") as sock:
        assert read_to_end(sock) == b"bye\n"


def target_resets(made: Tunnel) -> None:
    with made.dial("reset") as sock:
        sock.sendall(b"a")
        assert sock.recv(1) == b"!"
        sock.sendall(b"b")
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


def refused(made: Tunnel) -> None:
    with pytest.raises(ConnectRefused):
        made.cluster.dial(f"{BOX}:1").close()


def client_leaves_at_once(made: Tunnel) -> None:
    made.dial("echo").close()


@pytest.mark.parametrize(
    "close", [client_closes, client_resets, target_closes, target_resets, refused, client_leaves_at_once]
)
def test_nothing_is_left(shared: Tunnel, close: Callable[[Tunnel], None]) -> None:
    daemons = (shared.cluster.server, shared.box.agent)
    close(shared)  # what is made on first use is made now
    wait_until(lambda: settled(shared), "the first to end")
    before = [(daemon.descriptors(), daemon.threads()) for daemon in daemons]
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        for done in [pool.submit(close, shared) for _ in range(OPENS)]:
            done.result()
    wait_until(lambda: settled(shared), "the targets to see every end")
    wait_until(
        lambda: all(daemon.descriptors() <= count for daemon, (count, _) in zip(daemons, before, strict=True)),
        f"descriptors as before ({before})",
    )
    # gRPC keeps a few threads more or less, as it likes.
    assert all(daemon.threads() <= count + 4 for daemon, (_, count) in zip(daemons, before, strict=True))
    with shared.dial("echo") as sock:
        assert exchange(sock) == b"ping"


def settled(made: Tunnel) -> bool:
    return not any(target.open for target in made.targets.values())
