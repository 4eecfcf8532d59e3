"""Closes a unix socket in the way that is nearest to RST.

When it is closed while something of its peer lies unread in it, the peer gets ECONNRESET behind all that it has yet
to read (net/unix/af_unix.c, `unix_release_sock`); else an end of file, as after a clean close. So a socket that is to
be reset is no longer read from, and closed as soon as its peer has said one thing more; or after a moment, when it does
not: a peer that only listens cannot be told.
"""

from __future__ import annotations

import asyncio
import os
import socket

WAIT_S = 0.1
"""Seconds that a peer may take to say something. One that uploads or types does; one that only reads waits in vain."""


def is_unix(transport: asyncio.Transport) -> bool:
    """Returns whether a transport's socket is a unix socket, which is closed in this way."""
    sock = transport.get_extra_info("socket")
    return sock is not None and sock.family == socket.AF_UNIX


class LastWord:
    """Closes one unix socket in that way."""

    def __init__(self, transport: asyncio.Transport) -> None:
        """Begins at once; `transport` must not be closing yet."""
        loop = asyncio.get_running_loop()
        transport.pause_reading()
        self._transport = transport
        # A copy: the event loop lets nobody watch a descriptor of a transport's.
        self._watched = os.dup(transport.get_extra_info("socket").fileno())
        loop.add_reader(self._watched, self._close)
        self._timer = loop.call_later(WAIT_S, self._close)

    def cancel(self) -> None:
        """Stops waiting: the socket is gone otherwise."""
        self._timer.cancel()
        if self._watched != -1:
            asyncio.get_running_loop().remove_reader(self._watched)
            os.close(self._watched)
            self._watched = -1

    def _close(self) -> None:
        self.cancel()
        self._transport.abort()
