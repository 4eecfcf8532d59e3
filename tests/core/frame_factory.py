"""A peer that keeps no rule: packets written as raw protobuf, against one session that must keep them all."""

from __future__ import annotations

from protos import tunnel_pb2 as pb
from tunnel.core import events as ev
from tunnel.core.session import Session
from tunnel.core.streams.stream import CoreStream
from tunnel.core.wire.codec import decode_envelope
from tunnel.core.wire.limits import Limits
from tunnel.core.wire.target import TcpTarget


class FrameFactory:
    """Frames of any content, without the checks of our own encoder."""

    @staticmethod
    def data(stream_id: int, data: bytes) -> pb.Frame:
        return pb.Frame(stream_id=stream_id, data=data)

    @staticmethod
    def credit(stream_id: int, limit: int) -> pb.Frame:
        return pb.Frame(stream_id=stream_id, credit=limit)

    @staticmethod
    def open(
        stream_id: int, *, host: str = "h", port: int = 1, deadline_ms: int = 1000, credit: int = 65536, **rest: object
    ) -> pb.Frame:
        frame = pb.Frame(stream_id=stream_id)
        frame.open.tcp.host, frame.open.tcp.port = host, port
        frame.open.deadline_ms, frame.open.credit = deadline_ms, credit
        for name, value in rest.items():
            setattr(frame.open, name, value)
        return frame

    @staticmethod
    def accept(stream_id: int, *, credit: int = 65536, resolved_address: str = "") -> pb.Frame:
        return pb.Frame(stream_id=stream_id, accept=pb.Accept(credit=credit, resolved_address=resolved_address))

    @staticmethod
    def fin(stream_id: int) -> pb.Frame:
        return pb.Frame(stream_id=stream_id, fin=pb.Fin())

    @staticmethod
    def reset(stream_id: int, *, code: int = 5, text: str = "") -> pb.Frame:
        return pb.Frame(stream_id=stream_id, reset=pb.Reset(code=code, text=text))

    @staticmethod
    def stop_sending(stream_id: int, *, code: int = 5) -> pb.Frame:
        return pb.Frame(stream_id=stream_id, stop_sending=pb.StopSending(code=code))

    @staticmethod
    def ping(nonce: int) -> pb.Frame:
        return pb.Frame(ping=pb.Ping(nonce=nonce))

    @staticmethod
    def pong(nonce: int) -> pb.Frame:
        return pb.Frame(pong=pb.Pong(nonce=nonce))

    @staticmethod
    def go_away(*, code: int = 7, text: str = "", reconnect_after_ms: int = 0) -> pb.Frame:
        return pb.Frame(go_away=pb.GoAway(code=code, text=text, reconnect_after_ms=reconnect_after_ms))


class Victim:
    """A server's session, attached to a hostile agent. The agent's streams have odd ids, the server's even ones."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.now = 0.0
        self.seq = 0
        self.session = Session(session_id=b"s" * 16, dialler=False, now=0.0, limits=limits)
        self.session.attach(self.now)

    def receive(self, *frames: pb.Frame, seq: int | None = None, ack: int = 0, ack_delay_us: int = 0) -> None:
        """Take one packet of the peer; numbered in order unless `seq` says otherwise."""
        if seq is None:
            self.seq += 1
            seq = self.seq
        packet = pb.Packet(seq=seq, ack=ack, ack_delay_us=ack_delay_us, frames=frames)
        self.receive_message(pb.Envelope(packet=packet).SerializeToString())

    def receive_message(self, message: bytes) -> None:
        """Take any message of the peer."""
        self.session.receive_message(self.session.generation, message, self.now)

    def answers(self) -> list[pb.Frame]:
        """Every frame that the session sends now."""
        messages = iter(lambda: self.session.next_packet(self.now), None)
        return [frame for message in messages for frame in decode_envelope(message).packet.frames]

    def events(self) -> list[ev.Event]:
        """What the session tells its shell."""
        return self.session.events()

    def accepted(self, stream_id: int = 1, *, credit: int = 65536) -> CoreStream:
        """A stream that the peer opened and the session accepted."""
        self.receive(FrameFactory.open(stream_id, credit=credit))
        stream = self.session.stream(stream_id)
        assert stream is not None
        self.session.accept_stream(stream, self.now, "10.1.0.9:80")
        self.answers()
        self.events()
        return stream

    def opened(self, *, credit: int = 65536) -> CoreStream:
        """A stream that the session opened and the peer accepted."""
        stream = self.opening()
        self.receive(FrameFactory.accept(stream.id, credit=credit))
        self.events()
        return stream

    def opening(self) -> CoreStream:
        """A stream that the session opened and the peer has not answered."""
        stream = self.session.open_stream(TcpTarget("10.1.0.9", 80), self.now, deadline_s=10.0)
        self.answers()
        return stream
