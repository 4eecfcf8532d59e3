"""Reads along with one direction of a session and fails when its sender breaks docs/protocol.md."""

from __future__ import annotations

from dataclasses import dataclass, field

from protos import tunnel_pb2 as pb
from tunnel.core.wire.codec import decode_envelope
from tunnel.core.wire.limits import MAX_DATA_BYTES, MAX_EARLY_BYTES


@dataclass
class _Half:
    """What one side has sent of one stream."""

    sent_bytes: int = 0
    credit_granted: int = 0
    """What this side allowed the other to send."""
    open_to_send: bool = False
    fin: bool = False
    reset: bool = False


@dataclass
class WireCheck:
    """One direction. `other` is the opposite one, whose credits bound what goes here."""

    parity: int
    """Of the ids that this sender opens."""
    max_packet_bytes: int
    halves: dict[int, _Half] = field(default_factory=dict)
    other: WireCheck | None = None
    last_seq: int = 0

    def message(self, message: bytes) -> None:
        """Look at a message as it is sent; one that is sent again is what it was."""
        packet = decode_envelope(message).packet
        assert len(message) <= max(self.max_packet_bytes, 4096)
        if packet.seq == 0:
            assert all(frame.WhichOneof("kind") in ("ping", "pong") for frame in packet.frames)
            return
        if packet.seq <= self.last_seq:
            return
        assert packet.seq == self.last_seq + 1
        self.last_seq = packet.seq
        for frame in packet.frames:
            if frame.stream_id:
                self._frame(frame)

    def _frame(self, frame: pb.Frame) -> None:
        assert self.other is not None
        stream_id = frame.stream_id
        kind = frame.WhichOneof("kind")
        if kind == "open":
            assert stream_id % 2 == self.parity
            assert stream_id > max((one for one in self.halves if one % 2 == self.parity), default=0)
            assert len(frame.open.early_data) <= MAX_EARLY_BYTES
            self.halves[stream_id] = _Half(sent_bytes=len(frame.open.early_data), credit_granted=frame.open.credit)
            assert frame.open.deadline_ms >= 1
            return
        half = self.halves.setdefault(stream_id, _Half())
        assert not half.reset, f"{kind} of stream {stream_id} after RESET"
        peer = self.other.halves.get(stream_id)
        if kind == "accept":
            assert not half.open_to_send
            assert peer is not None
            half.open_to_send = peer.open_to_send = True
            half.credit_granted = frame.accept.credit
            assert peer.sent_bytes <= half.credit_granted
        elif kind == "reset":
            half.reset = True
        else:
            assert half.open_to_send, f"{kind} of stream {stream_id} before ACCEPT"
            assert peer is not None
            self._open_frame(frame, half, peer)

    @staticmethod
    def _open_frame(frame: pb.Frame, half: _Half, peer: _Half) -> None:
        match frame.WhichOneof("kind"):
            case "data":
                assert not half.fin
                assert 0 < len(frame.data) <= MAX_DATA_BYTES
                half.sent_bytes += len(frame.data)
                assert half.sent_bytes <= peer.credit_granted
            case "fin":
                assert not half.fin
                half.fin = True
            case "credit":
                assert frame.credit >= half.credit_granted
                half.credit_granted = frame.credit
            case kind:
                assert kind == "stop_sending"


def watch_both(max_packet_bytes: int) -> tuple[WireCheck, WireCheck]:
    """The check of what the agent sends and of what the server sends."""
    agent, server = WireCheck(1, max_packet_bytes), WireCheck(0, max_packet_bytes)
    agent.other, server.other = server, agent
    return agent, server
