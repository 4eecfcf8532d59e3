"""Two sessions over a simulated network in virtual time: rate, delay, a sender's buffer, cuts, black holes, frozen
hosts.

The carrier is modelled as gRPC over TCP is seen from above: reliable and in order, with a buffer that swallows
megabytes ahead of the link (so latency is our own doing), blocking the writer only when that is full.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from tunnel.core import events as ev
from tunnel.core.link import Link as LinkState
from tunnel.core.session import Session
from tunnel.core.wire.limits import Limits, Timing


@dataclass(kw_only=True)
class Path:
    """One direction of a link."""

    rate_bytes_per_s: float = float("inf")
    delay_s: float = 0.0
    buffer_bytes: int = 4 * 1024 * 1024
    black_hole: bool = False
    free_s: float = 0.0
    last_arrival_s: float = 0.0
    queued_bytes: int = 0
    carried_bytes: int = 0


@dataclass
class Host:
    """A session with what its applications do on events."""

    session: Session
    on_event: Callable[[ev.Event], None]
    frozen: bool = False
    backlog: list[tuple[int, bytes]] = field(default_factory=list)
    events: list[ev.Event] = field(default_factory=list)


class Simulation:
    """The network and its clock."""

    def __init__(
        self,
        *,
        rate_bytes_per_s: float = float("inf"),
        delay_s: float = 0.0,
        limits: Limits | None = None,
        timing: Timing | None = None,
    ) -> None:
        """`delay_s` is one way; the round trip is twice as long."""
        self.now = 0.0
        self.message_overhead_bytes = 100
        self._order = itertools.count()
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._timers: dict[int, float] = {}
        self.epoch = 0
        self.hosts: list[Host] = []
        for dialler in (True, False):
            session = Session(session_id=b"s" * 16, dialler=dialler, now=0.0, limits=limits, timing=timing)
            self.hosts.append(Host(session, lambda event: None))
        self.paths = [
            Path(rate_bytes_per_s=rate_bytes_per_s, delay_s=delay_s),
            Path(rate_bytes_per_s=rate_bytes_per_s, delay_s=delay_s),
        ]
        self.agent, self.server = self.hosts
        self.connect()

    # What tests do

    def connect(self) -> None:
        """Join both sessions by a new carrier, as Hello and Welcome do."""
        self.epoch += 1
        received = [host.session.last_received for host in self.hosts]
        for index, path in enumerate(self.paths):
            path.free_s = path.last_arrival_s = self.now
            path.queued_bytes = 0
            self.hosts[index].backlog.clear()
            self.hosts[index].session.attach(self.now, received[1 - index])
        self.kick()

    def cut(self) -> None:
        """The carrier breaks: what was on its way is lost."""
        self.epoch += 1
        for host in self.hosts:
            host.session.detach(host.session.generation, self.now)
        self.kick()

    def thaw(self, host: Host) -> None:
        """A frozen process goes on: it finds everything that arrived meanwhile."""
        host.frozen = False
        for epoch, message in host.backlog:
            self._deliver(host, epoch, message)
        host.backlog.clear()
        self.kick()

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something after a while."""
        heapq.heappush(self._queue, (self.now + delay_s, next(self._order), action))

    def run(self, duration_s: float = 60.0, until: Callable[[], bool] = lambda: False) -> bool:
        """Let time pass, up to a duration; True when `until` came true."""
        end = self.now + duration_s
        self.kick()
        while not until():
            if not self._queue or self._queue[0][0] > end:
                self.now = max(self.now, end)
                return until()
            self.now, _, action = heapq.heappop(self._queue)
            action()
            self.kick()
        return True

    def kick(self) -> None:
        """Let both hosts handle events and send what they may."""
        for index, host in enumerate(self.hosts):
            if not host.frozen:
                self._work(index, host)

    # Internal

    def _work(self, index: int, host: Host) -> None:
        session = host.session
        self._dispatch(host)
        path = self.paths[index]
        while path.queued_bytes < path.buffer_bytes and (message := session.next_packet(self.now)) is not None:
            self._send(index, message)
            self._dispatch(host)
        self._arm(index, host)

    def _dispatch(self, host: Host) -> None:
        while events := host.session.events():
            for event in events:
                host.events.append(event)
                host.on_event(event)

    def _arm(self, index: int, host: Host) -> None:
        due = host.session.next_timer()
        if due is None or self._timers.get(index, float("inf")) <= due:
            return
        due = max(due, self.now)
        self._timers[index] = due

        def fire() -> None:
            self._timers.pop(index, None)
            if not host.frozen:
                host.session.on_timer(self.now)

        heapq.heappush(self._queue, (due, next(self._order), fire))

    def _send(self, index: int, message: bytes) -> None:
        path, epoch = self.paths[index], self.epoch
        size = len(message) + self.message_overhead_bytes
        path.queued_bytes += size
        path.free_s = max(path.free_s, self.now) + size / path.rate_bytes_per_s
        arrival = max(path.free_s + path.delay_s, path.last_arrival_s)
        path.last_arrival_s = arrival

        def leave() -> None:
            if epoch == self.epoch:
                path.queued_bytes -= size
                path.carried_bytes += size

        def arrive() -> None:
            receiver = self.hosts[1 - index]
            if epoch != self.epoch or path.black_hole:
                return
            if receiver.frozen:
                receiver.backlog.append((epoch, message))
            else:
                self._deliver(receiver, epoch, message)

        heapq.heappush(self._queue, (path.free_s, next(self._order), leave))
        heapq.heappush(self._queue, (arrival, next(self._order), arrive))

    def _deliver(self, host: Host, epoch: int, message: bytes) -> None:
        if epoch == self.epoch and host.session.link is LinkState.ATTACHED:
            host.session.receive_message(host.session.generation, message, self.now)
            self._dispatch(host)
