"""The frame log: a line for each frame of one session, `<` for what came in and `>` for what went out.

It is off unless somebody asks for one session's, and goes off by itself: a line for each frame of a busy link is
thousands a second, and whoever looked forgets it on a Friday. See `TunnelSession.log_frames`.
"""

from __future__ import annotations

from structlog.typing import FilteringBoundLogger

from tunnel.core.wire.codec import decode_envelope, decode_packet
from tunnel.core.wire.errors import TunnelError
from tunnel.core.wire.frame_text import frame_text


class FrameLog:
    """Writes the frames of a session that passes its messages here."""

    __slots__ = ("_log",)

    def __init__(self, log: FilteringBoundLogger) -> None:
        """Writes to `log`, which names the session."""
        self._log = log.bind(each=True)  # none of them stands for others that look like it

    def received(self, message: bytes) -> None:
        """Writes the frames of a message that came in."""
        self._write("<", message)

    def sent(self, message: bytes) -> None:
        """Writes the frames of a message that goes out."""
        self._write(">", message)

    def _write(self, way: str, message: bytes) -> None:
        """Writes a line for each frame, and one for the packet itself when it has none.

        The message is decoded a second time for this alone: whoever has the log off pays nothing.
        """
        try:
            envelope = decode_envelope(message)
            if envelope.WhichOneof("body") != "packet":
                self._log.info(f"{way} {envelope.WhichOneof('body') or 'nothing'}")
                return
            packet = decode_packet(envelope.packet)
        except TunnelError as error:
            self._log.info(f"{way} a message that breaks the protocol", reason=str(error), bytes=len(message))
            return
        for frame in packet.frames:
            self._log.info(f"{way} {frame_text(frame)}", packet=packet.seq)
        if not packet.frames:
            self._log.info(f"{way} ACK {packet.ack.seq}", packet=packet.seq)
