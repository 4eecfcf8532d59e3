"""The one shape of a two-way byte channel: a tunnel stream, a socket, anything that HTTP or a splice may run over."""

from __future__ import annotations

from typing import Protocol

from tunnel.core.wire.errors import Code


class Duplex(Protocol):
    """A channel of ordered bytes both ways, with half-close, and resets that are never mistaken for an end.

    One task may read and one may write at a time. Cancelling a `read` loses no byte. Failures are `StreamError`s.
    """

    async def read(self, max_bytes: int = 65536) -> bytes:
        """Waits for bytes and returns up to `max_bytes`; `b""` means that the other side finished cleanly.

        Raises:
            StreamReset: the other side, or its socket, was reset.
            SessionLost: the tunnel behind it is gone.
        """
        ...

    async def write(self, data: bytes | memoryview) -> None:
        """Hands bytes over, and waits while the other side is slow.

        Raises:
            StreamReset, SessionLost, StreamClosed: the bytes may not arrive.
        """
        ...

    async def write_eof(self) -> None:
        """Says that no more bytes follow; reading goes on. Queued bytes are delivered first."""
        ...

    async def aclose(self) -> None:
        """Ends the channel, cleanly where both directions were finished or what was written can still be delivered."""
        ...

    def reset(self, code: Code = Code.CANCELLED, text: str = "") -> None:
        """Ends the channel at once in both directions; the other side sees a reset, never a clean end."""
        ...
