"""Drives a core session: one reader and one writer task per carrier, one timer, and a Stream object per stream.

The session outlives its carriers; who dials the next one, or accepts it, is the daemons' business.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from tunnel.aio.carrier import Carrier, CarrierLost
from tunnel.aio.stream import Stream
from tunnel.aio.tasks import TaskOwner
from tunnel.core import events as ev
from tunnel.core.errors import Code, OpenRefused, SessionLost, SessionRefused, StreamError, StreamReset, TunnelError
from tunnel.core.frames import TrafficClass
from tunnel.core.handshake import encode_refusal
from tunnel.core.session import Session, SessionStatistics
from tunnel.core.states import Link
from tunnel.core.stream import CoreStream
from tunnel.core.target import Target

LAST_WORDS_S = 1.0
"""How long a peer that broke the protocol may take to read why the session ends."""

_log = structlog.get_logger("tunnel.session")


class IncomingStream:
    """A stream that the peer asks for: answer with `accept` or `refuse`, once."""

    def __init__(self, session: TunnelSession, event: ev.StreamOpened) -> None:
        self.stream_id = event.stream_id
        self.target = event.target
        self.principal = event.principal
        self.trace_id = event.trace_id
        self.deadline_s = max(0.0, event.deadline_s - session.now())
        """Time left to answer when the request came in."""
        self._session = session
        self.answered = False

    def accept(self, resolved_address: str = "") -> Stream:
        """Connected: bytes may flow.

        Raises:
            StreamError: the peer gave up meanwhile, or the session ended.
        """
        self.answered = True
        return self._session.accept(self.stream_id, resolved_address)

    def refuse(self, code: Code, text: str) -> None:
        """Not connected, and why: the text reaches the peer's user."""
        self.answered = True
        self._session.refuse(self.stream_id, code, text)


class _Run:
    """One carrier's time with the session."""

    __slots__ = ("carrier", "finishing", "generation", "greeting", "idle", "last_words", "lost", "over")

    def __init__(self, carrier: Carrier, generation: int, greeting: bytes) -> None:
        self.carrier = carrier
        self.generation = generation
        self.greeting = greeting
        self.idle = False
        """The writer has nothing to send."""
        self.finishing = False
        """The writer is to end the carrier in order when it has nothing left."""
        self.last_words = b""
        self.lost: CarrierLost | None = None
        self.over = False


Acceptor = Callable[[IncomingStream], Awaitable[None]]
"""Runs in a task of its own for each stream the peer opens, until the stream's work is done; it is cancelled when the
peer gives up before an answer, and when the session ends."""


class TunnelSession:
    """One session, from its first carrier to its end."""

    def __init__(
        self, core: Session, acceptor: Acceptor, peer: str, *, on_going_away: Callable[[ev.PeerGoingAway], None]
    ) -> None:
        """`peer` names the other side in logs. `on_going_away` is told when the peer takes no new streams."""
        self.core = core
        self.peer = peer
        self._acceptor = acceptor
        self._on_going_away = on_going_away
        self._loop = asyncio.get_running_loop()
        self.label = core.session_id.hex()[:8]
        """How the session is named in logs; the whole id would let a reader of logs resume it."""
        self._log = _log.bind(peer=peer, session=self.label)
        self._streams: dict[int, Stream] = {}
        self._opening: dict[int, tuple[CoreStream, asyncio.Future[Stream]]] = {}
        self._answering: dict[int, asyncio.Task[None]] = {}
        self._tasks = TaskOwner(f"session {peer}")
        self._run: _Run | None = None
        self._conditions: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._idle_writer: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s = 0.0
        self._dispatching = False
        self._closed = self._loop.create_future()

    # Public

    def now(self) -> float:
        """The session's clock."""
        return self._loop.time()

    @property
    def attached(self) -> bool:
        """Whether a carrier is up."""
        return self.core.link is Link.ATTACHED

    @property
    def going_away(self) -> bool:
        """Whether one of the sides takes no new streams."""
        return self.core.going_away

    @property
    def closed(self) -> asyncio.Future[TunnelError | None]:
        """Done when the session is over; holds why, None for our own wish. Do not cancel it."""
        return self._closed

    async def open(
        self,
        target: Target,
        *,
        deadline_s: float,
        traffic_class: TrafficClass = TrafficClass.AUTO,
        principal: str = "",
        trace_id: str = "",
    ) -> Stream:
        """Open a stream and wait for the peer's answer. Cancelling it cancels the dial at the far end.

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
        """Answer a stream that the peer opened; `IncomingStream.accept` is the way to it."""
        core = self.core.stream(stream_id)
        if core is None:
            raise OpenRefused("the other side gave up", Code.CANCELLED)
        self._answering.pop(stream_id, None)
        self.core.accept_stream(core, resolved_address)
        stream = self._streams[stream_id] = Stream(self, core)
        self.kick()
        return stream

    def refuse(self, stream_id: int, code: Code, text: str) -> None:
        """Refuse a stream that the peer opened; `IncomingStream.refuse` is the way to it."""
        self._answering.pop(stream_id, None)
        core = self.core.stream(stream_id)
        if core is not None:
            self.core.reset_stream(core, code, text)
            self.kick()

    def go_away(self, code: Code, text: str, reconnect_after_s: float = 0.0) -> None:
        """Take no new streams, and ask the peer to open none."""
        self.core.go_away(code, text, reconnect_after_s)
        self.kick()

    async def drained(self) -> None:
        """Wait until no stream is left; bound it with `asyncio.timeout`."""
        await self._until(lambda: self.core.stream_count == 0)

    def fence(self) -> None:
        """Give up the carrier at once: what still comes over it is ignored. Before `core.last_received` is told."""
        self._give_up_carrier("another link of this peer took its place")
        self.core.detach(self.core.generation, self.now())
        self.kick()

    async def run_carrier(self, carrier: Carrier, peer_received: int, greeting: bytes = b"") -> CarrierLost | None:
        """Carry the session over a carrier until that is lost; an earlier carrier is closed at once.

        The carrier is attached before anything is awaited, so that nothing can come between what the handshake said
        of `core.last_received` and the first packet.

        Args:
            carrier: whose handshake is done but for `greeting`.
            peer_received: the highest packet that the peer has.
            greeting: sent before the first packet; empty for none.

        Returns:
            Why it ended; None when the peer ended it in order.
        """
        if self._run is not None:
            self._run.carrier.close()
        run = self._run = _Run(carrier, self.core.attach(self.now(), peer_received), greeting)
        self.kick()  # the writer of an earlier carrier sees that it is fenced
        async with asyncio.TaskGroup() as both:
            both.create_task(self._read(run), name=f"read {self.peer}")
            both.create_task(self._write(run), name=f"write {self.peer}")
        if self._run is run:
            self._run = None
        return run.lost

    def close(self, error: TunnelError | None = None) -> None:
        """End the session now: streams end with SessionLost. None: our own wish."""
        self.core.close(error)
        self.kick()

    async def aclose(self) -> None:
        """End the session and wait until nothing of it is left."""
        self.close()
        await self._tasks.aclose()

    async def finish(self, deadline_s: float) -> None:
        """After GOAWAY: reset the streams that are left, deliver what is queued, end the carrier in order, then close.

        Without the reset, the other side would keep these streams for as long as it waits for another carrier.
        """
        self._reset_streams(Code.SHUTTING_DOWN, "the other side has stopped")
        run = self._run
        if run is not None:
            try:
                async with asyncio.timeout(deadline_s):
                    await self._until(lambda: run.over or (run.idle and not self.core.statistics().kept_bytes))
                    run.finishing = True
                    self.kick()
                    await self._until(lambda: run.over)
            except TimeoutError:
                self._log.info("the other side did not take the end of the session in time")
        self.close()

    def statistics(self) -> SessionStatistics:
        """Figures as they stand."""
        return self.core.statistics()

    # Internal - the pump

    def kick(self) -> None:
        """Hand out events, wake the writer, keep the timer right. Called after every use of the core."""
        self._dispatch()
        waiting = self._idle_writer
        if waiting is not None and not waiting.done():
            waiting.set_result(None)
        self._arm()
        if self._conditions:
            self._check_conditions()

    def forget(self, stream_id: int) -> None:
        """A stream was reset by this side: no event of it follows."""
        self._streams.pop(stream_id, None)

    async def _until(self, condition: Callable[[], bool]) -> None:
        if condition():
            return
        waiter = self._loop.create_future()
        entry = (condition, waiter)
        self._conditions.append(entry)
        try:
            await waiter
        finally:
            self._conditions.remove(entry)

    def _check_conditions(self) -> None:
        for condition, waiter in self._conditions:
            if not waiter.done() and condition():
                waiter.set_result(None)

    async def _read(self, run: _Run) -> None:
        try:
            while (message := await run.carrier.read()) is not None:
                self.core.receive_message(run.generation, message, self.now())
                self.kick()
        except CarrierLost as lost:
            run.lost = run.lost or lost
        except TunnelError as error:
            run.lost = CarrierLost(str(error))
            self._fail(run, error)
            await _read_out(run.carrier)
        finally:
            self._end_run(run)

    async def _write(self, run: _Run) -> None:
        carrier = run.carrier
        try:
            if run.greeting:
                await carrier.write(run.greeting)
            while self.core.generation == run.generation and self.attached:
                message = self.core.next_packet(self.now())
                if message is not None:
                    await carrier.write(message)
                    self._dispatch()
                    continue
                if run.finishing:
                    break
                run.idle = True
                self._idle_writer = self._loop.create_future()
                self._arm()
                if self._conditions:
                    self._check_conditions()
                await self._idle_writer
                run.idle = False
            if run.last_words:
                await carrier.write(run.last_words)
            if run.last_words or run.finishing:
                await carrier.finish()
        except CarrierLost as lost:
            run.lost = run.lost or lost
            self._end_run(run)

    def _reset_streams(self, code: Code, text: str) -> None:
        for stream_id in {*self._streams, *self._opening, *self._answering}:
            core = self.core.stream(stream_id)
            if core is not None:
                self.core.reset_stream(core, code, text)
                self._on_ended(ev.StreamEnded(stream_id, StreamReset(text, code)))
        self.kick()

    def _end_run(self, run: _Run) -> None:
        """The carrier is over: close it, and let the session wait for another, unless it was ended in order."""
        if run.over:
            return
        run.over = True
        run.carrier.close()
        if run.lost is None and run.generation == self.core.generation and self.core.going_away:
            self.close(SessionLost(f"{self.peer} has shut down"))
        elif self.core.detach(run.generation, self.now()):
            self._log.info("link lost, the session waits", reason=str(run.lost or "ended by the other side"))
        self.kick()

    def _fail(self, run: _Run, error: TunnelError) -> None:
        """The peer broke a rule, or ended the session: say so on both sides and end it."""
        if isinstance(error, SessionRefused):
            self._log.warning("the other side ended the session", reason=str(error), code=error.code.label)
        else:
            self._log.error("the other side broke the protocol", reason=str(error), code=error.code.label)
            run.last_words = encode_refusal(SessionRefused(str(error), error.code))
        self.close(error)

    def _arm(self) -> None:
        due = self.core.next_timer()
        if self._timer is not None:
            if due is not None and self._timer_s <= due:
                return
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer_s = due
            self._timer = self._loop.call_at(due, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self.core.on_timer(self.now())
        self.kick()

    # Internal - events

    def _dispatch(self) -> None:
        if self._dispatching:
            return
        self._dispatching = True
        try:
            while events := self.core.events():
                for event in events:
                    self._handle(event)
        finally:
            self._dispatching = False

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
                    f"stream {event.stream_id}", self._answer(incoming)
                )
            case ev.PeerSuspect():
                self._log.debug("silent peer was asked for a sign of life")
            case ev.CarrierDead():
                self._log.warning("no sign of life, link given up", silent_s=event.silent_s)
                self._give_up_carrier(f"silent for {event.silent_s:g} s")
            case ev.PeerGoingAway():
                self._on_going_away(event)
            case ev.SessionClosed():
                self._on_closed(event)

    def _tell_stream(self, event: ev.StreamReadable | ev.StreamWritable | ev.StreamFinished) -> None:
        stream = self._streams.get(event.stream_id)
        if stream is None:  # reset by this side since
            return
        match event:
            case ev.StreamReadable():
                stream.on_readable()
            case ev.StreamWritable():
                stream.on_writable()
            case ev.StreamFinished():
                stream.on_eof()

    def _give_up_carrier(self, reason: str) -> None:
        if self._run is not None:
            self._run.lost = self._run.lost or CarrierLost(reason)
            self._run.carrier.close()

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
            answering.cancel()
        opening = self._opening.get(event.stream_id)
        if opening is not None and not opening[1].done():
            opening[1].set_exception(_as_refusal(event.error))
        stream = self._streams.pop(event.stream_id, None)
        if stream is not None:
            stream.on_ended(event.error)

    def _on_closed(self, event: ev.SessionClosed) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._run is not None and not self._run.last_words:
            self._run.carrier.close()
        if not self._closed.done():
            self._closed.set_result(event.error)

    async def _answer(self, incoming: IncomingStream) -> None:
        try:
            await self._acceptor(incoming)
        except StreamError as error:
            if not incoming.answered:
                incoming.refuse(error.code, str(error))
        finally:
            if not incoming.answered:
                incoming.refuse(Code.INTERNAL, "the far end could not answer")


def _as_refusal(error: StreamError | None) -> OpenRefused:
    if isinstance(error, OpenRefused):
        return error
    return OpenRefused(str(error), error.code) if error is not None else OpenRefused("the stream ended", Code.CANCELLED)


async def _read_out(carrier: Carrier) -> None:
    """Give the last words a moment to arrive: closing the call would overtake them."""
    try:
        async with asyncio.timeout(LAST_WORDS_S):
            while await carrier.read() is not None:
                pass
    except (CarrierLost, TimeoutError):
        return
