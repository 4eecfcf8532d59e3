"""Who is at the other end of a unix socket, as the kernel tells it."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple, Protocol

_UCRED = struct.Struct("3i")
"""`struct ucred` of unix(7)."""


class HasOptions(Protocol):
    """A socket, or the stand-in that an event loop hands out for one."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """Read a socket option into `size` bytes."""
        ...


class PeerCredentials(NamedTuple):
    """The process that connected, as it was when it did."""

    pid: int
    uid: int
    gid: int


def peer_credentials(sock: HasOptions) -> PeerCredentials:
    """Returns who connected a unix socket (SO_PEERCRED).

    Raises:
        OSError: the socket is gone, or is no unix socket.
    """
    return PeerCredentials(*_UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))
