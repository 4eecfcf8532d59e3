"""Serves one tunnel: the call that kube-apiserver made for it, joined to a stream to what it dialled.

There is one dial in a call, and no half-close: whichever end closes, the other gets all that was sent before. What
waits for the client waits as credit that the stream's sender does not get, never in memory of ours.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from cloud_server.frontends.http_answers import reason_phrase
from cloud_server.frontends.konnectivity import packets
from cloud_server.frontends.konnectivity.call import Call
from cloud_server.frontends.konnectivity.messages import CallFailed, Status
from cloud_server.opens.door import Door
from cloud_server.opens.request import OpenRequest
from cloud_server.trust.caller import Caller
from protos.konnectivity_pb2 import Data, DialRequest, Packet, PacketType
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.errors import GAVE_UP, Code, OpenRefused, StreamError
from tunnel.core.wire.faults import ONLY_TCP, coded
from tunnel.core.wire.limits import MAX_DATA_BYTES

FRONTEND = "konnectivity"
ASK_S = 10.0
"""Seconds that a call may be there without a dial."""
SETTLE_S = 0.05
"""Seconds that the endpoint's first bytes wait at most for the client's own: konnectivity's client does not know the
tunnel yet for a moment after it got our answer, and closes it when something comes in that moment.
"""
MIN_BATCH_BYTES = 16 * 1024
MAX_BATCH_BYTES = 256 * 1024
"""The most bytes in one DATA packet. The client keeps ten for its reader and cuts the tunnel when the reader takes none
for 10 s: large ones let a reader stop for longer, small ones let it be slower (with these, 26 kB/s behind a burst).
"""
BULK_BYTES = 64 * 1024
"""The number of bytes without a pause after which packets are filled up to as many bytes."""
GATHER_S = 0.02
"""Seconds that such a packet waits at most to be filled."""
PAUSE_S = 0.1
QUICK_S = 0.1
SLOW_S = 1.0
"""The bounds in seconds for the size of packets: when a packet is taken in less than QUICK_S, the next may be twice as
large; when in more than SLOW_S, half.
"""


@dataclass(frozen=True, slots=True)
class Service:
    """What all tunnels of a front end share."""

    door: Door
    deadline_s: float
    """Seconds within which every dial is answered."""


class Tunnel:
    """One tunnel, which is the handler of its call and the sink of its stream at once."""

    def __init__(self, call: Call, service: Service, connect_id: int, caller: Caller, peer: str) -> None:
        """Makes a tunnel that serves nothing until `run`.

        Args:
            call: that it serves.
            service: of its front end.
            connect_id: what packets of this tunnel are marked with; not 0.
            caller: whoever opened the socket.
            peer: the socket's other end, for the record.
        """
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._call = call
        self._service = service
        self._id = connect_id
        self._caller = caller
        self._peer = peer
        self._asked: asyncio.Future[DialRequest | None] = loop.create_future()
        self._given_up: asyncio.Future[None] = loop.create_future()
        self._stream: Stream | None = None
        self._closed: asyncio.Future[None] = loop.create_future()
        self._chunks: deque[bytes] = deque()
        self._chunk_offset = 0
        self._waiting = 0
        """The number of bytes in the chunks."""
        self._in_flight = 0
        self._batch = MAX_BATCH_BYTES // 4
        self._burst = 0
        """The number of bytes that were sent since the last pause."""
        self._sent_at_s = 0.0
        self._gathering: asyncio.TimerHandle | None = None
        self._settling: asyncio.TimerHandle | None = None
        self._endpoint_finished = False

    # Public

    async def run(self) -> None:
        """Serves the call until it is over."""
        try:
            async with asyncio.timeout(ASK_S):
                request = await self._asked
        except TimeoutError:
            self._call.finish(Status.DEADLINE_EXCEEDED, "no dial came in time")
            return
        if request is not None:
            await self._dial(request)

    # Internal - called by the call

    def received(self, message: bytes) -> None:
        """Handles a packet that came. Kinds that are not known here are left out, as the others of this protocol do.

        Raises:
            CallFailed: the message is no packet.
        """
        try:
            packet = Packet.FromString(message)
        except DecodeError as error:
            raise CallFailed(Status.INTERNAL, "a message is no Packet") from error
        match packet.type:
            case PacketType.DATA:
                self._on_data(packet.data)
            case PacketType.DIAL_REQ if packet.HasField("dial_request"):
                self._on_dial(packet.dial_request)
            case PacketType.CLOSE_REQ:
                self._on_close(packet.close_request.connect_id)
            case PacketType.DIAL_CLS:
                self._on_dial_given_up(packet.close_dial.random)
            case _:
                pass

    def client_finished(self) -> None:
        """Ends the tunnel, since the client sends no more and did not close: what it sent still arrives."""
        self._give_up()
        if self._stream is not None and not self._closed.done():
            self._stream.close_nowait()
            self._end()
        self._call.finish()

    def sent(self) -> None:
        """Lets the endpoint send as much again, since the client took the last packet."""
        if self._stream is None or self._closed.done() or not self._in_flight:
            return
        took_s = self._loop.time() - self._sent_at_s
        if took_s > SLOW_S:
            self._batch = max(self._batch // 2, MIN_BATCH_BYTES)
        elif took_s < QUICK_S:
            self._batch = min(self._batch * 2, MAX_BATCH_BYTES)
        count, self._in_flight = self._in_flight, 0
        self._stream.consumed(count)
        self._pump()

    def lost(self, text: str) -> None:
        """Resets the stream, since the client is gone without a close: what it sent may be cut short, and the endpoint
        must know.
        """
        self._give_up()
        if self._stream is not None and not self._closed.done():
            self._stream.reset(Code.CONNECTION_RESET, text)
            self._end()

    # Internal - called by the stream (StreamSink)

    def readable(self) -> None:
        """Sends on the bytes that came from the endpoint, when the client takes them."""
        self._pump()

    def eof(self) -> None:
        """Ends the tunnel behind the endpoint's bytes, since the endpoint has finished."""
        self._endpoint_finished = True
        self._pump()

    def writable(self) -> None:
        """Lets the client send again, since the way to the endpoint has room."""
        self._call.go_on()

    def ended(self, error: StreamError | None) -> None:
        """Ends the tunnel, since the stream is over; tells the client the error, if there was one."""
        if error is None:
            self.eof()
        elif not self._closed.done():
            self._call.send(packets.close_response(self._id, reason_phrase(str(error))))
            self._call.finish()
            self._end()

    # Internal - packets

    def _on_dial(self, request: DialRequest) -> None:
        if self._asked.done():
            refusal = packets.dial_response(request.random, error="this call has had its dial; make another")
            self._call.send(refusal)
        else:
            self._asked.set_result(request)

    def _on_dial_given_up(self, random: int) -> None:
        request = self._asked.result() if self._asked.done() else None
        if request is None or request.random != random:
            return
        # It may cross our answer: then the client takes it for an answer to a dial that it does not know any more.
        self._call.finish()
        self.lost("the client gave up the dial")

    def _on_data(self, data: Data) -> None:
        if data.connect_id == 0:
            return
        if self._stream is None:
            self._call.send(packets.close_response(data.connect_id, "backend not initialized"))
        elif data.connect_id != self._id:
            self._on_mismatch(data.connect_id)
        else:
            self._settle()
            payload, more = data.data, True
            for start in range(0, len(payload), MAX_DATA_BYTES):
                more = self._stream.send_nowait(payload[start : start + MAX_DATA_BYTES])
            if not more:
                self._call.hold()

    def _on_close(self, connect_id: int) -> None:
        if self._stream is None:
            self._call.send(packets.close_response(connect_id, "backend not initialized"))
        elif connect_id != self._id:
            self._on_mismatch(connect_id)
        else:
            self._call.send(packets.close_response(self._id))
            self._call.finish()
            self._stream.close_nowait()  # delivers in the background what the client sent before
            self._end()

    def _on_mismatch(self, connect_id: int) -> None:
        text = "mismatched connection IDs"
        for one in (self._id, connect_id):
            self._call.send(packets.close_response(one, text))
        self._call.finish()
        self.lost(text)

    # Internal - the tunnel

    async def _dial(self, request: DialRequest) -> None:
        asking = OpenRequest(
            caller=self._caller,
            frontend=FRONTEND,
            peer=self._peer,
            asked=request.address,
            deadline_s=self._service.deadline_s,
        )
        door = self._service.door
        try:
            if request.protocol != "tcp":
                text = f"only tcp is carried, not {request.protocol or 'nothing'}"
                refused = OpenRefused(text, Code.UNREACHABLE, ONLY_TCP)
                door.refuse(asking, refused)
                raise refused
            live = await door.open(asking, self._until_given_up())
        except OpenRefused as refused:
            if not self._given_up.done():
                self._call.send(
                    packets.dial_response(request.random, error=reason_phrase(coded(str(refused), refused.fault)))
                )
                self._call.finish()
            return
        if live is not None:
            await self._carry(live.opened(), request.random)

    async def _until_given_up(self) -> None:
        await asyncio.shield(self._given_up)

    async def _carry(self, stream: Stream, random: int) -> None:
        if self._given_up.done():  # between the stream's opening and this task's turn
            stream.reset(Code.CANCELLED, GAVE_UP)
            return
        self._stream = stream
        self._call.send(packets.dial_response(random, connect_id=self._id))
        self._settling = self._loop.call_later(SETTLE_S, self._settle)
        try:
            await self._closed
        except asyncio.CancelledError:
            stream.reset(Code.SHUTTING_DOWN, "the server is stopping")
            raise

    def _settle(self) -> None:
        """Lets the endpoint speak, since the client knows the tunnel."""
        if self._settling is not None and self._stream is not None:
            self._settling.cancel()
            self._settling = None
            self._stream.attach(self)

    def _pump(self) -> None:
        """Sends the client what waits, one packet at a time."""
        assert self._stream is not None
        if self._closed.done():
            return
        for chunk in self._stream.receive_nowait():  # also while a packet is out: there is no event for more
            self._chunks.append(chunk)
            self._waiting += len(chunk)
        if self._in_flight:
            return
        if self._waiting:
            if not self._may_gather():
                self._send_batch()
        elif self._endpoint_finished:
            self._call.send(packets.close_response(self._id))
            self._call.finish()
            self._stream.close_nowait()  # the other direction ends with it, behind what the client has sent
            self._end()

    def _may_gather(self) -> bool:
        """Returns whether to wait for more: in a stream of bulk data, for a little, so that packets are not small."""
        if self._loop.time() - self._sent_at_s > PAUSE_S:
            self._burst = 0
        assert self._stream is not None
        # No more than the endpoint may send: with all that it sent consumed, that is at least half of the window.
        full = min(BULK_BYTES, self._batch, self._stream.statistics().window_bytes // 2)
        if self._burst < BULK_BYTES or self._waiting >= full or self._endpoint_finished:
            return False
        if self._gathering is None:
            self._gathering = self._loop.call_later(GATHER_S, self._send_batch)
        return True

    def _send_batch(self) -> None:
        self._stop_gathering()
        payload = self._take(self._batch)
        self._in_flight = len(payload)
        self._burst += len(payload)
        self._sent_at_s = self._loop.time()
        self._call.send(packets.data(self._id, payload))

    def _take(self, max_bytes: int) -> bytes:
        parts = []
        while self._chunks and max_bytes:
            chunk = self._chunks[0]
            part = chunk[self._chunk_offset : self._chunk_offset + max_bytes]
            parts.append(part)
            max_bytes -= len(part)
            self._waiting -= len(part)
            self._chunk_offset += len(part)
            if self._chunk_offset == len(chunk):
                self._chunks.popleft()
                self._chunk_offset = 0
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _give_up(self) -> None:
        if not self._given_up.done():
            self._given_up.set_result(None)
        if not self._asked.done():
            self._asked.set_result(None)

    def _stop_gathering(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None

    def _end(self) -> None:
        self._stop_gathering()
        if self._settling is not None:
            self._settling.cancel()
            self._settling = None
        self._chunks.clear()
        self._closed.set_result(None)
