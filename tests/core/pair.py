"""Two sessions back to back, without a network: what both may send is moved until they are quiet."""

from __future__ import annotations

from collections.abc import Iterable

from protos import tunnel_pb2 as pb
from tunnel.core import events as ev
from tunnel.core.path.probes import PingBudget
from tunnel.core.session import Session
from tunnel.core.streams.stream import CoreStream
from tunnel.core.wire.codec import decode_envelope
from tunnel.core.wire.frames import TrafficClass
from tunnel.core.wire.limits import Limits, Timing
from tunnel.core.wire.target import Target, TcpTarget

TARGET = TcpTarget("10.1.0.9", 80)


class End:
    """One session, with the events that it gave and were not looked at yet."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.log: list[ev.Event] = []

    def events(self) -> list[ev.Event]:
        """Every event since the last call."""
        self.log += self.session.events()
        log, self.log = self.log, []
        return log

    def event(self) -> ev.Event:
        """The one event since the last call."""
        (event,) = self.events()
        return event


class Pair:
    """An agent's and a server's session, and the clock of both."""

    def __init__(
        self,
        *,
        agent_limits: Limits | None = None,
        server_limits: Limits | None = None,
        timing: Timing | None = None,
        ping_budget: PingBudget | None = None,
    ) -> None:
        self.now = 100.0
        self.agent = End(Session(session_id=b"s" * 16, dialler=True, now=self.now, limits=agent_limits, timing=timing))
        self.server = End(
            Session(
                session_id=b"s" * 16,
                dialler=False,
                now=self.now,
                limits=server_limits,
                timing=timing,
                ping_budget=ping_budget,
            )
        )
        self.attach()

    def attach(self) -> None:
        """A new carrier, as Hello and Welcome make it."""
        agent, server = self.agent.session, self.server.session
        received = agent.last_received, server.last_received
        agent.attach(self.now, received[1])
        server.attach(self.now, received[0])

    def detach(self) -> None:
        """The carrier breaks; nothing was on its way."""
        for end in (self.agent, self.server):
            end.session.detach(end.session.generation, self.now)

    def send(self, sender: End) -> list[bytes]:
        """Everything that a session may send now, not yet delivered."""
        return list(iter(lambda: sender.session.next_packet(self.now), None))

    def deliver(self, receiver: End, messages: Iterable[bytes]) -> None:
        """Hand messages to a session."""
        for message in messages:
            receiver.session.receive_message(receiver.session.generation, message, self.now)

    def transfer(self) -> list[pb.Packet]:
        """Move everything that may be sent, in turns, until both are quiet; returns every packet that went by."""
        seen: list[pb.Packet] = []
        quiet = 0
        while quiet < 2:
            quiet += 1
            for sender, receiver in ((self.agent, self.server), (self.server, self.agent)):
                messages = self.send(sender)
                self.deliver(receiver, messages)
                seen += [decode_envelope(message).packet for message in messages]
                quiet = 0 if messages else quiet
        return seen

    def pass_time(self, duration_s: float) -> None:
        """Let the clock go on, with every timer at its time, and packets at once."""
        end = self.now + duration_s
        while True:
            self.transfer()
            timers = [one.session.next_timer() for one in (self.agent, self.server)]
            due = min((timer for timer in timers if timer is not None), default=end)
            if due > end:
                break
            self.now = max(self.now, due)
            for one in (self.agent, self.server):
                one.session.on_timer(self.now)
            if due == end:
                break
        self.now = end
        self.transfer()

    def open(
        self,
        opener: End | None = None,
        *,
        target: Target = TARGET,
        traffic_class: TrafficClass = TrafficClass.AUTO,
    ) -> tuple[CoreStream, CoreStream]:
        """Open and accept a stream; its two ends, the opener's first. The server opens when nobody else is named."""
        opener = opener or self.server
        other = self.agent if opener is self.server else self.server
        local = opener.session.open_stream(target, self.now, deadline_s=10.0, traffic_class=traffic_class)
        self.transfer()
        remote = other.session.stream(local.id)
        assert remote is not None
        other.session.accept_stream(remote, self.now, "10.1.0.9:80")
        self.transfer()
        self.agent.events()
        self.server.events()
        return local, remote
