"""What applications do at both ends of a simulated link: copy, echo, stall."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from tests.support.simulation import Host, Simulation
from tunnel.core import events as ev
from tunnel.core.streams.stream import CoreStream
from tunnel.core.wire.errors import StreamError
from tunnel.core.wire.frames import TrafficClass
from tunnel.core.wire.limits import CHUNK_BYTES
from tunnel.core.wire.target import TcpTarget

BLOB = bytes(one * one % 251 for one in range(65536)) * 5
"""What sources send, over and over."""


class App:
    """One end of one stream."""

    sim: Simulation
    host: Host
    stream: CoreStream

    def __init__(self) -> None:
        self.received_bytes = 0
        self.crc = 0
        self.finished = False
        self.over = False
        self.error: StreamError | None = None

    def connected(self) -> None:
        """The stream is open."""

    def received(self, chunk: bytes) -> None:
        """Bytes came in; they count as consumed."""

    def eof(self) -> None:
        """The other end finished, and everything before it was received."""
        self.host.session.send_fin(self.stream, self.sim.now)

    def writable(self) -> None:
        """There is room to send again."""

    def readable(self) -> None:
        """Take what arrived."""
        session = self.host.session
        for chunk in session.take(self.stream):
            self.received_bytes += len(chunk)
            self.crc = zlib.crc32(chunk, self.crc)
            self.received(chunk)
            session.consumed(self.stream, len(chunk), self.sim.now)

    def send(self, data: bytes, *more: bytes) -> bool:
        """Queue bytes; False when it is time to wait."""
        return self.host.session.send_data(self.stream, data, self.sim.now, *more)


class Sink(App):
    """Reads all."""


class Stalled(App):
    """Reads nothing, ever."""

    def readable(self) -> None:
        """Leave it."""

    def eof(self) -> None:
        """Leave it."""


class Echo(App):
    """Sends back what it gets."""

    def received(self, chunk: bytes) -> None:
        self.send(chunk)


class Source(App):
    """Sends so many bytes, or for ever, then finishes."""

    def __init__(self, total_bytes: float = float("inf")) -> None:
        super().__init__()
        self.total_bytes = total_bytes
        self.sent_bytes = 0
        self.sent_crc = 0

    def connected(self) -> None:
        self.writable()

    def writable(self) -> None:
        """Sends as a splice does: up to four chunks at a time, no more than there is room for."""
        while self.sent_bytes < self.total_bytes:
            start = self.sent_bytes % 65536
            room = min(max(self.host.session.send_room(self.stream), 512), 4 * CHUNK_BYTES)
            data = BLOB[: start + int(min(room, self.total_bytes - self.sent_bytes))][start:]
            self.sent_bytes += len(data)
            self.sent_crc = zlib.crc32(data, self.sent_crc)
            if not self.send(*[data[cut : cut + CHUNK_BYTES] for cut in range(0, len(data), CHUNK_BYTES)]):
                return
        self.host.session.send_fin(self.stream, self.sim.now)


class Pinger(App):
    """Sends a keystroke, waits for its echo, rests, and so on."""

    def __init__(self, rest_s: float = 0.05) -> None:
        super().__init__()
        self.rest_s = rest_s
        self.round_trips: list[tuple[float, float]] = []
        """When each came back, and how long it took."""
        self._sent_s = 0.0

    def connected(self) -> None:
        self._ping()

    def received(self, chunk: bytes) -> None:
        if self.received_bytes % 64 == 0:
            self.round_trips.append((self.sim.now, self.sim.now - self._sent_s))
            self.sim.at(self.rest_s, self._ping)

    def percentile(self, share: float, since_s: float = 0.0) -> float:
        """A round trip that so many are not longer than."""
        times = sorted(took for when, took in self.round_trips if when >= since_s)
        assert times, "nothing came back"
        return times[min(len(times) - 1, int(len(times) * share))]

    def _ping(self) -> None:
        self._sent_s = self.sim.now
        self.send(b"k" * 64)


class Traffic:
    """Opens streams over a simulation and hands each end to its app."""

    def __init__(self, sim: Simulation) -> None:
        self.sim = sim
        self.apps: dict[tuple[int, int], App] = {}
        for index, host in enumerate(sim.hosts):
            host.on_event = self._handler(index)

    def open(
        self,
        opener: Host,
        local: App,
        remote: App,
        *,
        deadline_s: float = 10.0,
        traffic_class: TrafficClass = TrafficClass.AUTO,
    ) -> None:
        """Open a stream from a host: `local` is what runs there, `remote` what accepts it."""
        sim = self.sim
        index = sim.hosts.index(opener)
        stream = opener.session.open_stream(
            TcpTarget("app", 1), sim.now, deadline_s=deadline_s, traffic_class=traffic_class
        )
        local.sim = remote.sim = sim
        local.host, local.stream = opener, stream
        remote.host = sim.hosts[1 - index]
        self.apps[index, stream.id] = local
        self.apps[1 - index, stream.id] = remote
        sim.kick()

    def _handler(self, index: int) -> Callable[[ev.Event], None]:
        session = self.sim.hosts[index].session

        def handle(event: ev.Event) -> None:
            stream_id = getattr(event, "stream_id", None)
            if stream_id is None:
                return
            app = self.apps[index, stream_id]
            match event:
                case ev.StreamOpened():
                    stream = session.stream(stream_id)
                    assert stream is not None
                    app.stream = stream
                    session.accept_stream(stream, self.sim.now)
                    app.connected()
                case ev.StreamAccepted():
                    app.connected()
                case ev.StreamReadable():
                    app.readable()
                case ev.StreamWritable():
                    app.writable()
                case ev.StreamFinished():
                    app.readable()
                    app.finished = True
                    app.eof()
                case ev.StreamEnded(error=error):
                    assert not app.over
                    app.over = True
                    app.error = error

        return handle
