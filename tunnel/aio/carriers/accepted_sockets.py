"""Finds the sockets that gRPC has accepted, among the descriptors of this process, and closes one.

gRPC shows Python no connection before its first call, and takes no socket that somebody else accepted. But its sockets
are descriptors of this process: the kernel tells whose they are, and a shutdown of one is for gRPC a peer that left.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Collection
from contextlib import suppress

from tunnel.aio.carriers.peer_key import PeerKey

__all__ = ["AcceptedSockets"]

_FDS = "/proc/self/fd"
_ADDRESS_BYTES = 128
"""The size of sockaddr_storage."""
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER, on and 0 s: closing sends a reset, and nothing of the connection stays in the kernel."""


class AcceptedSockets:
    """Looks for connections at some local ports. Its methods block for some ms at most, and may run in any thread."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._buffer = ctypes.create_string_buffer(_ADDRESS_BYTES)
        self._length = ctypes.c_uint32()

    def descriptors(self) -> int:
        """Returns how many descriptors this process has; 0 where the kernel does not say (before Linux 6.2)."""
        return os.stat(_FDS).st_size  # noqa: PTH116 - it is asked for twice a second

    def find(self, ports: Collection[int], skipped: Collection[int]) -> dict[PeerKey, int]:
        """Returns the descriptor of each connection at one of the ports, by its peer. One of `skipped` is not looked
        at.
        """
        found: dict[PeerKey, int] = {}
        for name in os.listdir(_FDS):  # noqa: PTH208 - thousands of names, and no need of paths
            descriptor = int(name)
            if descriptor in skipped:
                continue
            local = self._address(self._libc.getsockname, descriptor)
            if local is None or local.port not in ports:
                continue
            if (peer := self._address(self._libc.getpeername, descriptor)) is not None:
                found[peer] = descriptor
        return found

    def listening(self, port: int) -> list[socket.socket]:
        """Returns a copy of each socket of this process that listens at the port."""
        found: list[socket.socket] = []
        for name in os.listdir(_FDS):  # noqa: PTH208 - thousands of names, and no need of paths
            local = self._address(self._libc.getsockname, int(name))
            if local is None or local.port != port or self._address(self._libc.getpeername, int(name)) is not None:
                continue
            with suppress(OSError):
                sock = socket.socket(fileno=os.dup(int(name)))
                if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    found.append(sock)
                else:
                    sock.close()
        return found

    def cut(self, descriptor: int, peer: PeerKey) -> bool:
        """Resets the connection; returns False when the descriptor has become another's."""
        try:
            # A copy: the number could be given to another file between a look at it and the cut.
            copy = os.dup(descriptor)
        except OSError:
            return False
        try:
            if self._address(self._libc.getpeername, copy) != peer:
                return False
            with socket.socket(fileno=os.dup(copy)) as sock, suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                sock.shutdown(socket.SHUT_RDWR)
            return True
        finally:
            os.close(copy)

    # Internal

    def _address(self, ask: object, descriptor: int) -> PeerKey | None:
        """Returns what getsockname(2) or getpeername(2) tell; None where there is no IP socket, or no peer."""
        self._length.value = _ADDRESS_BYTES
        if ask(descriptor, self._buffer, ctypes.byref(self._length)):  # type: ignore[operator]
            return None
        raw = self._buffer.raw
        family, port = struct.unpack_from("=H", raw)[0], struct.unpack_from("!H", raw, 2)[0]
        if family == socket.AF_INET:
            return PeerKey.of_packed(raw[4:8], port)
        if family == socket.AF_INET6:
            return PeerKey.of_packed(raw[8:24], port)
        return None
