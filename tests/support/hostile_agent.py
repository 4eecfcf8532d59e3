"""A box's certificate in the wrong hands: what it says to a running server is written by hand, rule or no rule."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self, cast

import grpc
import grpc.aio

from protos import tunnel_pb2 as pb
from tunnel.aio.carriers.credentials import channel_credentials
from tunnel.aio.carriers.methods import CONNECT
from tunnel.aio.identity.tls_material import ClientTls
from tunnel.core.wire.codec import decode_envelope
from tunnel.core.wire.errors import SessionRefused
from tunnel.core.wire.handshake import Welcome, decode_answer, decode_refusal, encode_hello
from tunnel.core.wire.limits import SESSION_ID_BYTES, Limits

_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]
_Call = grpc.aio.StreamStreamCall[bytes, bytes]


def stolen_tls(state: Path) -> ClientTls:
    """What lies in the state folder of a box that joined."""
    return ClientTls(certificate=state / "agent.crt", key=state / "agent.key", ca=state / "ca.crt")


def stolen_context(state: Path) -> ssl.SSLContext:
    """The same for a connection that speaks HTTP/2 by hand."""
    context = ssl.create_default_context(cafile=str(state / "ca.crt"))
    context.load_cert_chain(state / "agent.crt", state / "agent.key")
    context.set_alpn_protocols(["h2"])
    return context


class HostileAgent:
    """One carrier of a box that joined. Use as a context manager.

    Attributes:
        seq: the number of the last sequenced packet that was sent.
        received: the number of the last one that came.
    """

    def __init__(self, address: str, state: Path) -> None:
        """`address` is the server's; `state` the box's state folder."""
        credentials = channel_credentials(stolen_tls(state).load())
        self._channel = grpc.aio.secure_channel(address, credentials, _OPTIONS)
        self._call: _Call = self._channel.stream_stream(CONNECT)()
        self._messages = cast("AsyncGenerator[object]", aiter(self._call))
        self.seq = 0
        self.received = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._call.cancel()
        # gRPC keeps the connection until the last reference to the call is gone, and its iterator has one.
        with suppress(RuntimeError, grpc.aio.AioRpcError, asyncio.CancelledError):
            await self._messages.aclose()
        del self._call, self._messages
        await self._channel.close()

    async def greet(self, hello: bytes | None = None) -> Welcome:
        """Say Hello as a new process does, or as given.

        Raises:
            SessionRefused: the server's words.
        """
        await self.send_message(hello if hello is not None else self.hello())
        return decode_answer(await self._read())

    def hello(self) -> bytes:
        """What a decent agent says first."""
        node = pb.Node(hostname="stolen")
        return encode_hello(version="1", instance_id=os.urandom(SESSION_ID_BYTES), node=node, limits=Limits())

    async def send(self, *frames: pb.Frame, seq: int | None = None, ack: int | None = None) -> None:
        """Send one packet: numbered in order, and with a true ack, unless told otherwise."""
        await self.send_message(self.packet(frames, seq=seq, ack=ack))

    def packet(self, frames: Sequence[pb.Frame], *, seq: int | None = None, ack: int | None = None) -> bytes:
        """What `send` sends."""
        if seq is None:
            self.seq += 1
            seq = self.seq
        packet = pb.Packet(seq=seq, ack=self.received if ack is None else ack, frames=frames)
        return pb.Envelope(packet=packet).SerializeToString()

    async def send_message(self, message: bytes) -> None:
        await self._call.write(message)

    async def frames(self) -> list[pb.Frame]:
        """The frames of the next packet.

        Raises:
            SessionRefused: the server ends the session.
            EOFError: it ended the call.
        """
        envelope = decode_envelope(await self._read())
        if envelope.WhichOneof("body") == "refusal":
            raise decode_refusal(envelope.refusal)
        self.received = max(self.received, envelope.packet.seq)
        return list(envelope.packet.frames)

    async def opened(self) -> int:
        """Wait for an OPEN of the server; the id of its stream."""
        while True:
            for frame in await self.frames():
                if frame.WhichOneof("kind") == "open":
                    return frame.stream_id

    async def refusal(self) -> SessionRefused:
        """Read on to the server's last word.

        Raises:
            EOFError: there was none.
        """
        while True:
            try:
                await self.frames()
            except SessionRefused as refused:
                return refused

    async def status(self, within_s: float = 10.0) -> grpc.StatusCode:
        """Read on to the end of the call, and tell how gRPC ended it."""
        async with asyncio.timeout(within_s):
            try:
                while True:
                    await self._read()
            except (EOFError, grpc.aio.AioRpcError, asyncio.CancelledError):
                return await self._call.code()

    async def _read(self) -> bytes:
        message = await anext(self._messages, None)
        if isinstance(message, bytes):
            return message
        raise EOFError("the server ended the call")
