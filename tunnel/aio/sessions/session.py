"""Drives a core session: its timer, its events, and a Stream object for each stream.

The session outlives its carriers, of which each is a `CarrierRun`; who dials the next one, or accepts it, is the
daemons' business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import structlog
from structlog.typing import FilteringBoundLogger

from tunnel.aio.carriers.carrier import Carrier, CarrierLost
from tunnel.aio.process.clock import Clock
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sessions.carrier_run import CarrierRun
from tunnel.aio.sessions.conditions import Conditions
from tunnel.aio.sessions.frame_log import FrameLog
from tunnel.aio.sessions.incoming import Acceptor, IncomingStream
from tunnel.aio.sessions.stream import Stream
from tunnel.aio.sessions.timer import CoreTimer
from tunnel.core import events as ev
from tunnel.core.link import Link
from tunnel.core.session import Session, SessionStatistics
from tunnel.core.streams.stream import CoreStream
from tunnel.core.wire.errors import GAVE_UP, Code, OpenRefused, SessionLost, StreamError, StreamReset, TunnelError
from tunnel.core.wire.faults import BUG
from tunnel.core.wire.frames import TrafficClass
from tunnel.core.wire.principal import NOBODY, Principal
from tunnel.core.wire.spoken import spoken_s
from tunnel.core.wire.target import Target

_log = structlog.get_logger("tunnel.session")

OnGoingAway = Callable[["TunnelSession", ev.PeerGoingAway], None]


class TunnelSession:
    """One session, from its first carrier to its end."""

    __slots__ = (
        "_acceptor", "_answering", "_closed", "_conditions", "_dispatching", "_loop", "_on_going_away", "_opening",
        "_run", "_streams", "_tasks", "_tidying", "_timer", "core", "frame_log", "label", "now",
        "on_turned_down", "peer",
    )  # fmt: skip

    def __init__(
        self, core: Session, acceptor: Acceptor, peer: str, *, on_going_away: OnGoingAway, clock: Clock
    ) -> None:
        """Begins a session without a carrier; `run_carrier` gives it the first.

        Args:
            core: the core of the session, made just now with a `now` of this clock.
            acceptor: answers the streams that the peer opens.
            peer: the other side's name in logs.
            on_going_away: is told when the peer takes no new streams.
            clock: the one clock of this session.
        """
        self.core = core
        self.now = clock
        self.peer = peer
        self._acceptor = acceptor
        self._on_going_away = on_going_away
        self._loop = asyncio.get_running_loop()
        self.label = core.session_id.hex()[:8]
        """How the session is named in logs; the whole id would let a reader of logs resume it."""
        self.frame_log: FrameLog | None = None
        self._streams: dict[int, Stream] = {}
        self._opening: dict[int, tuple[CoreStream, asyncio.Future[Stream]]] = {}
        self._answering: dict[int, asyncio.Task[None]] = {}
        self._tasks = TaskOwner(f"session {peer}")
        self._run: CarrierRun | None = None
        self._conditions = Conditions()
        self._timer = CoreTimer(core, clock, self._on_timer)
        self._dispatching = False
        self._tidying = False
        self._closed = self._loop.create_future()
        self.on_turned_down: Callable[[ev.OpenTurnedDown], None] = _nobody_wants_to_know
        """Is told of streams that the peer asked for and that were refused before the acceptor heard of them."""

    # Public

    @property
    def log(self) -> FilteringBoundLogger:
        """Returns the log of this session.

        It is bound anew each time, since thousands of sessions seldom say anything.
        """
        return cast("FilteringBoundLogger", _log.bind(peer=self.peer, session=self.label))

    @property
    def attached(self) -> bool:
        """Returns whether a carrier is up."""
        return self.core.link is Link.ATTACHED

    @property
    def going_away(self) -> bool:
        """Returns whether one of the sides takes no new streams."""
        return self.core.going_away

    @property
    def closed(self) -> asyncio.Future[TunnelError | None]:
        """Returns a future that is done when the session is over.

        Its result is why, None for our own wish. Do not cancel it.
        """
        return self._closed

    def log_frames(self, for_s: float) -> None:
        """Writes each frame to the log from now on, for `for_s` seconds; 0 ends it."""
        log = self.frame_log = FrameLog(self.log) if for_s > 0 else None
        if log is not None:
            self._loop.call_later(for_s, self._end_frame_log, log)

    async def open(
        self,
        target: Target,
        *,
        deadline_s: float,
        traffic_class: TrafficClass = TrafficClass.AUTO,
        principal: Principal = NOBODY,
        trace_id: str = "",
        early_data: bytes = b"",
    ) -> Stream:
        """Opens a stream and waits for the peer's answer. Cancelling this cancels the dial at the far end.

        Args:
            target: what the peer is to connect to.
            deadline_s: seconds for the peer's answer, the wait for a carrier included.
            traffic_class: what is known of the traffic to come.
            principal: who asks.
            trace_id: the id that both sides log beside everything that concerns this stream; empty for none.
            early_data: its first bytes, up to MAX_EARLY_BYTES: the target gets them as soon as it is connected.

        Raises:
            OpenRefused: the peer, a limit, or the deadline said no; `code` says which.
        """
        core = self.core.open_stream(
            target,
            self.now(),
            deadline_s=deadline_s,
            traffic_class=traffic_class,
            principal=principal,
            trace_id=trace_id,
            early_data=early_data,
        )
        answer: asyncio.Future[Stream] = self._loop.create_future()
        self._opening[core.id] = core, answer
        self.kick()
        try:
            return await answer
        except asyncio.CancelledError:
            self.core.reset_stream(core, Code.CANCELLED, "the client gave up")
            self._streams.pop(core.id, None)
            self.kick()
            raise
        finally:
            self._opening.pop(core.id, None)

    def accept(self, stream_id: int, resolved_address: str) -> Stream:
        """Accepts a stream that the peer opened, and returns it; callers use `IncomingStream.accept`.

        Raises:
            OpenRefused: the other side gave up meanwhile.
        """
        core = self.core.stream(stream_id)
        if core is None:
            raise OpenRefused("the other side gave up", Code.CANCELLED)
        self._answering.pop(stream_id, None)
        self.core.accept_stream(core, self.now(), resolved_address)
        stream = self._streams[stream_id] = Stream(self, core)
        self.kick()
        return stream

    def refuse(self, stream_id: int, code: Code, text: str) -> None:
        """Refuses a stream that the peer opened; callers use `IncomingStream.refuse`."""
        self._answering.pop(stream_id, None)
        core = self.core.stream(stream_id)
        if core is not None:
            self.core.reset_stream(core, code, text)
            self.kick()

    def go_away(self, code: Code, text: str, reconnect_after_s: float = 0.0) -> None:
        """Tells the peer that this side takes no new streams, and opens none."""
        self.core.go_away(code, text, reconnect_after_s)
        self.kick()

    async def drained(self) -> None:
        """Waits until no stream is left. The caller must bound it with `asyncio.timeout`."""
        await self._conditions.until(lambda: self.core.stream_count == 0)

    async def attached_within(self, timeout_s: float) -> bool:
        """Waits for a carrier, at most `timeout_s` seconds or to the session's end, and returns whether
        there is one.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._conditions.until(lambda: self.attached or self._closed.done())
        except TimeoutError:
            pass
        return self.attached

    def fence(self) -> None:
        """Gives up the carrier: what still comes over it is ignored.

        It must be called before `core.last_received` is told.
        """
        if self._run is not None:
            self._run.give_up("another link of this peer took its place")
        self.core.detach(self.core.generation, self.now())
        self.kick()

    async def run_carrier(self, carrier: Carrier, peer_received: int, greeting: bytes = b"") -> CarrierLost | None:
        """Carries the session over a carrier until that is lost; an earlier carrier is closed at once.

        The carrier is attached before anything is awaited, so that nothing can come between what the handshake said of
        `core.last_received` and the first packet.

        Args:
            carrier: a carrier whose handshake is done but for `greeting`.
            peer_received: the highest packet that the peer has.
            greeting: sent before the first packet; empty for none.

        Returns:
            Why it ended, which the caller logs; None when the peer ended it in order.
        """
        if self.core.link is Link.CLOSED:  # while the caller's task was about to begin
            carrier.close()
            return CarrierLost("the session has ended")
        generation = self.core.attach(self.now(), peer_received)
        if self._run is not None:
            self._run.close()
        run = self._run = CarrierRun(self, carrier, generation, greeting)
        self.kick()
        try:
            return await run.run()
        finally:
            if self._run is run:
                self._run = None

    def close(self, error: TunnelError | None = None) -> None:
        """Ends the session now: its streams end with SessionLost. `error` is why; None means our own wish."""
        self.core.close(error)
        self.kick()

    async def aclose(self) -> None:
        """Ends the session, and returns when nothing of it is left."""
        self.close()
        await self._tasks.aclose()

    async def finish(self, deadline_s: float) -> None:
        """Ends the session in order, after GOAWAY: resets the streams that are left, delivers what is
        queued, closes.

        That takes at most `deadline_s` seconds. Without the reset, the other side would keep these streams for as long
        as it waits for another carrier.
        """
        self._reset_streams(Code.SHUTTING_DOWN, "the other side has stopped")
        run = self._run
        if run is not None:
            try:
                async with asyncio.timeout(deadline_s):
                    await self._conditions.until(
                        lambda: run.over or (run.idle and not self.core.statistics().kept_bytes)
                    )
                    run.finish()
                    await self._conditions.until(lambda: run.over)
            except TimeoutError:
                self.log.info("the other side did not take the end of the session in time")
        self.close()

    def statistics(self) -> SessionStatistics:
        """Returns the figures of the session as they stand."""
        return self.core.statistics()

    # Internal - the pump

    def kick(self) -> None:
        """Hands out events, wakes the writer, keeps the timer right. It must be called after every use of the core."""
        self._dispatch()
        if self._run is not None:
            self._run.wake()
        # The core is used a dozen times for a connection, and by many in one turn of the loop: once a turn will do.
        if not self._tidying:
            self._tidying = True
            self._loop.call_soon(self._tidy)

    def _tidy(self) -> None:
        if self._tidying:
            self.on_idle()

    def on_idle(self) -> None:
        """Keeps the timer right, and wakes who waits for this moment: nothing is left to hand out or to send."""
        self._tidying = False
        self._timer.arm()
        self._conditions.look()

    def forget(self, stream_id: int) -> None:
        """Forgets a stream that this side reset: no event of it follows."""
        self._streams.pop(stream_id, None)

    def _end_frame_log(self, log: FrameLog) -> None:
        if self.frame_log is log:
            self.frame_log = None

    def _on_timer(self) -> None:
        streams = self.core.stream_count
        try:
            self.core.on_timer(self.now())
        except Exception:
            self.log.exception("a fault in this program ends the session", code=BUG.code)
            self.close(SessionLost("internal error"))
        self.kick()
        if self._closed.done():
            self.log.warning("the session is over", reason=str(self._closed.result()), streams=streams)

    # Internal - events

    def _dispatch(self) -> None:
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while events := self.core.events():
                for event in events:
                    self._hand_out(event)
        finally:
            self._dispatching = False

    def _hand_out(self, event: ev.Event) -> None:
        """Handles an event; a fault in who takes it costs that one's stream, not the events behind it."""
        try:
            self._handle(event)
        except Exception:
            self.log.exception("a fault in this program", code=BUG.code, at=type(event).__name__)
            if isinstance(event, ev.StreamReadable | ev.StreamWritable | ev.StreamFinished):
                self.reset(event.stream_id, Code.INTERNAL, "internal error")

    def _handle(self, event: ev.Event) -> None:
        match event:
            case ev.StreamReadable() | ev.StreamWritable() | ev.StreamFinished():
                self._tell_stream(event)
            case ev.StreamAccepted():
                self._on_accepted(event)
            case ev.StreamEnded():
                self._on_ended(event)
            case ev.StreamOpened():
                incoming = IncomingStream(self, event)
                self._answering[event.stream_id] = self._tasks.spawn(
                    f"stream {event.stream_id}", incoming.served_by(self._acceptor)
                )
            case ev.OpenTurnedDown():
                self.on_turned_down(event)
            case ev.PeerSuspect():
                self.log.debug("silent peer was asked for a sign of life")
            case ev.CarrierDead():
                if self._run is not None:
                    self._run.give_up(f"no sign of life for {spoken_s(round(event.silent_s, 1))}")
            case ev.PeerGoingAway():
                self._on_going_away(self, event)
            case ev.SessionClosed():
                self._on_closed(event)

    def _tell_stream(self, event: ev.StreamReadable | ev.StreamWritable | ev.StreamFinished) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is not None:  # it was not reset by this side since
            stream.tell(event)

    def _on_accepted(self, event: ev.StreamAccepted) -> None:
        opening = self._opening.get(event.stream_id)
        if opening is None:
            return  # given up meanwhile
        core, answer = opening
        # The core may have ended it already: ACCEPT and RESET come in one packet.
        stream = self._streams[event.stream_id] = Stream(self, core)
        if not answer.done():
            answer.set_result(stream)

    def _on_ended(self, event: ev.StreamEnded) -> None:
        answering = self._answering.pop(event.stream_id, None)
        if answering is not None:
            # In a later step, so that one that has not run yet begins: it is to leave a record, too.
            self._loop.call_soon(answering.cancel, GAVE_UP)
        opening = self._opening.get(event.stream_id)
        if opening is not None and not opening[1].done():
            opening[1].set_exception(_as_refusal(event.error))
        stream = self._streams.pop(event.stream_id, None)
        if stream is not None:
            stream.on_ended(event.error)

    def _reset_streams(self, code: Code, text: str) -> None:
        for stream_id in {*self._streams, *self._opening, *self._answering}:
            self.reset(stream_id, code, text)
        self.kick()

    def reset(self, stream_id: int, code: Code, text: str) -> None:
        """Ends a stream for both sides, and tells whoever uses it here. The caller must `kick`."""
        core = self.core.stream(stream_id)
        if core is not None:
            self.core.reset_stream(core, code, text)
            self._hand_out(ev.StreamEnded(stream_id, StreamReset(text, code)))

    def _on_closed(self, event: ev.SessionClosed) -> None:
        self._timer.cancel()
        if self._run is not None and not self._run.last_words:
            self._run.close()
        if not self._closed.done():
            self._closed.set_result(event.error)


def _nobody_wants_to_know(event: ev.OpenTurnedDown) -> None:
    """Does nothing, for an end that keeps no records."""


def _as_refusal(error: StreamError | None) -> OpenRefused:
    if isinstance(error, OpenRefused):
        return error
    if error is None:
        return OpenRefused("the stream ended", Code.CANCELLED)
    return OpenRefused(str(error), error.code, error.fault)
