"""The server's side of `channel.k8s.io` over WebSocket: the numbered channels of one exec, paced by the duplex below.

It knows nothing of processes. Only the versions that carry an exit status are spoken (v4, and v5 with its half-close).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import IntEnum

import orjson

from edge_agent.hostkubelet.status import KubeletError
from tunnel.aio.http.http1 import Request
from tunnel.aio.http.websocket import WebSocket, accept_headers, key_of
from tunnel.aio.sockets.duplex import Duplex
from tunnel.core.wire.faults import UPGRADE_MISSING

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
"""The protocols that are spoken, best first."""
MAX_MESSAGE_BYTES = 32 * 1024
"""The most bytes of a message that is sent, its first byte included: what a kubelet copies at a time. Clients take no
more than twice that as one."""
MAX_RESIZE_BYTES = 256
"""The most bytes that are kept of a control message: a resize is one JSON object with two numbers."""


class Channel(IntEnum):
    """The channels; their number is the first byte of every message."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3
    RESIZE = 4
    CLOSE = 255


@dataclass(frozen=True, slots=True)
class Input:
    """Bytes for the command's stdin."""

    data: bytes


@dataclass(frozen=True, slots=True)
class InputEnd:
    """The event that no more stdin will come."""


@dataclass(frozen=True, slots=True)
class Resize:
    """The event that the client's terminal has this size."""

    columns: int
    rows: int


ChannelEvent = Input | InputEnd | Resize


def negotiate(request: Request) -> list[tuple[str, str]]:
    """Returns the headers of the 101 that answers an upgrade request.

    Raises:
        KubeletError: it is no WebSocket request, or none of its protocols is spoken here.
    """
    upgrade = (request.upgrade or "").lower()
    if upgrade.startswith("spdy/"):
        raise KubeletError(
            400, "SPDY is not supported here, only WebSocket: use kubectl 1.31 or newer", UPGRADE_MISSING
        )
    if upgrade != "websocket":
        raise KubeletError(
            400,
            "this needs a WebSocket upgrade with the protocol v5.channel.k8s.io or v4.channel.k8s.io",
            UPGRADE_MISSING,
        )
    key = key_of(request)
    if key is None:
        raise KubeletError(
            400, "the WebSocket upgrade must have a Sec-WebSocket-Key and Sec-WebSocket-Version 13", UPGRADE_MISSING
        )
    offered = request.headers.tokens("sec-websocket-protocol")
    chosen = next((protocol for protocol in PROTOCOLS if protocol in offered), None)
    if chosen is None:
        raise KubeletError(
            400,
            f"none of the WebSocket protocols offered is spoken here, only {' and '.join(PROTOCOLS)}",
            UPGRADE_MISSING,
        )
    return accept_headers(key, chosen)


class ChannelSocket:
    """The channels of one upgraded connection.

    One task receives, any number may send; each sender waits until the duplex took its bytes.
    """

    def __init__(self, duplex: Duplex, early: bytes = b"") -> None:
        self._websocket = WebSocket(duplex, early)
        self._message_channel: int | None = None
        self._control = bytearray()

    async def events(self) -> AsyncIterator[ChannelEvent]:
        """Yields what the client sends, until it closes or breaks the WebSocket protocol.

        Raises:
            StreamError: the connection was reset.
        """
        async for part in self._websocket.parts():
            if (received := self._take_part(part.data, part.finished)) is not None:
                yield received

    async def send(self, channel: Channel, data: bytes) -> None:
        """Sends bytes on a channel, in as many messages as it takes, and waits while the client is slow.

        Raises:
            StreamError: the client is gone.
        """
        head, part_bytes = bytes((channel,)), MAX_MESSAGE_BYTES - 1
        parts = [data[start : start + part_bytes] for start in range(0, len(data), part_bytes)] or [b""]
        await self._websocket.send_bytes(*(head + part for part in parts))

    async def keep_alive(self) -> None:
        """Answers pings and sends some; runs until it is cancelled.

        Raises:
            StreamError: the client is gone.
        """
        await self._websocket.keep_alive()

    async def close(self) -> None:
        """Sends the close of the WebSocket and the end of our bytes.

        Raises:
            StreamError: the client is gone.
        """
        await self._websocket.close()

    # Internal

    def _take_part(self, data: bytes, finished: bool) -> ChannelEvent | None:
        """Returns the event that a part of a message makes, or None.

        A message may come in parts; its first byte says where all of them belong.
        """
        if self._message_channel is None and data:
            self._message_channel, data = data[0], data[1:]
        channel = self._message_channel
        if finished:
            self._message_channel = None
        if channel == Channel.STDIN:
            return Input(data) if data else None
        if channel in (Channel.RESIZE, Channel.CLOSE):
            self._control += data[: MAX_RESIZE_BYTES - len(self._control)]
            if finished:
                whole, self._control = bytes(self._control), bytearray()
                return _resize(whole) if channel == Channel.RESIZE else _end(whole)
        return None  # other channels are the server's to write; clients may open them with an empty message


def _resize(data: bytes) -> Resize | None:
    try:
        size = orjson.loads(data)
        return Resize(int(size["Width"]), int(size["Height"]))
    except (ValueError, TypeError, KeyError, OverflowError):
        return None  # as a kubelet does: a size that makes no sense changes nothing


def _end(data: bytes) -> InputEnd | None:
    return InputEnd() if data == bytes((Channel.STDIN,)) else None
