from __future__ import annotations

import os
import socket

import pytest

from tunnel.aio.sockets.peer_credentials import PeerCredentials, peer_credentials


def test_the_kernel_tells_who_is_there() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert peer_credentials(one) == PeerCredentials(os.getpid(), os.geteuid(), os.getegid())


def test_a_socket_that_is_closed_has_nobody() -> None:
    one, other = socket.socketpair()
    one.close()
    other.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        peer_credentials(one)
