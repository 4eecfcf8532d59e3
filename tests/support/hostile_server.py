"""A server with the cloud's own key that has turned on its boxes: each word to a real agent is written by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from protos import tunnel_pb2 as pb
from tunnel.aio.carriers.carrier_server import AcceptedCarrier, CarrierServer
from tunnel.aio.identity.tls_material import ServerTls
from tunnel.core.wire.codec import decode_envelope
from tunnel.core.wire.errors import SessionRefused
from tunnel.core.wire.handshake import decode_hello, decode_refusal, encode_welcome
from tunnel.core.wire.limits import SESSION_ID_BYTES, Limits, Timing

ANSWER_S = 10.0


class HostileCarrier:
    """One carrier of an agent that dialled in.

    Attributes:
        seq: the number of the last sequenced packet that was sent.
        received: the number of the last one that came.
    """

    def __init__(self, carrier: AcceptedCarrier) -> None:
        self._carrier = carrier
        self.seq = 0
        self.received = 0

    async def greet(self, welcome: bytes | None = None) -> pb.Hello:
        """Read Hello, and take the agent in: as a decent server does, or with an answer as given."""
        hello = decode_hello(await self._read())
        await self.send_message(welcome if welcome is not None else self.welcome())
        return hello

    @staticmethod
    def welcome(limits: Limits | None = None, timing: Timing | None = None) -> bytes:
        """What a decent server answers."""
        return encode_welcome(
            protocol=1, version="1", session_id=b"s" * SESSION_ID_BYTES, resumed=False, last_received=0,
            limits=limits or Limits(), timing=timing or Timing(),
        )  # fmt: skip

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
        await self._carrier.write(message)

    async def frames(self) -> list[pb.Frame]:
        """The frames of the next packet.

        Raises:
            SessionRefused: the agent ends the session.
            EOFError: it ended the call.
            CarrierLost: it is gone.
        """
        envelope = decode_envelope(await self._read())
        if envelope.WhichOneof("body") == "refusal":
            raise decode_refusal(envelope.refusal)
        self.received = max(self.received, envelope.packet.seq)
        return list(envelope.packet.frames)

    async def answer(self, stream_id: int) -> pb.Frame:
        """Wait for the ACCEPT or RESET of a stream."""
        async with asyncio.timeout(ANSWER_S):
            while True:
                for frame in await self.frames():
                    if frame.stream_id == stream_id and frame.WhichOneof("kind") in ("accept", "reset"):
                        return frame

    async def data(self, stream_id: int, size_bytes: int) -> bytes:
        """Wait for as many bytes of a stream."""
        received = b""
        async with asyncio.timeout(ANSWER_S):
            while len(received) < size_bytes:
                received += b"".join(frame.data for frame in await self.frames() if frame.stream_id == stream_id)
        return received

    async def refusal(self) -> SessionRefused:
        """Read on to the agent's last word.

        Raises:
            EOFError, CarrierLost: there was none.
        """
        async with asyncio.timeout(ANSWER_S):
            while True:
                try:
                    await self.frames()
                except SessionRefused as refused:
                    return refused

    def close(self) -> None:
        self._carrier.close()

    async def _read(self) -> bytes:
        message = await self._carrier.read()
        if message is None:
            raise EOFError("the agent ended the call")
        return message


class HostileServer:
    """Use `hostile_server()`."""

    def __init__(self) -> None:
        self.address = ""
        self.dials = 0
        """Carriers, ever."""
        self._waiting: asyncio.Queue[HostileCarrier] = asyncio.Queue()

    async def carrier(self) -> HostileCarrier:
        """The next agent that dials in; nothing was said to it yet."""
        async with asyncio.timeout(ANSWER_S):
            return await self._waiting.get()

    async def hold(self, carrier: AcceptedCarrier, _uri: str, _spki: bytes) -> None:
        """Owns a carrier until it is over."""
        self.dials += 1
        self._waiting.put_nowait(HostileCarrier(carrier))
        await carrier.ended


@asynccontextmanager
async def hostile_server(state: Path) -> AsyncIterator[HostileServer]:
    """A server with the certificate in the state folder of a real one."""
    made = HostileServer()
    tls = ServerTls(certificate=state / "server.crt", key=state / "server.key", client_ca=state / "ca.crt")
    server = CarrierServer(["127.0.0.1:0"], tls, made.hold, None)
    await server.start()
    made.address = f"127.0.0.1:{server.ports[0]}"
    try:
        yield made
    finally:
        await server.stop(1.0)
