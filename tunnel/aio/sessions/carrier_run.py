"""Runs a session over one carrier: a reader and a writer, from the attach until the carrier is over.

What the messages do is the core's business; which carrier comes next is the daemons'.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from tunnel.aio.carriers.carrier import Carrier, CarrierLost
from tunnel.aio.process.clock import Clock
from tunnel.aio.sessions.frame_log import FrameLog
from tunnel.core.link import Link
from tunnel.core.session import Session
from tunnel.core.wire.errors import Code, RemoteProtocolError, SessionLost, SessionRefused, TunnelError
from tunnel.core.wire.faults import BUG
from tunnel.core.wire.handshake import encode_refusal

LAST_WORDS_S = 1.0
"""Seconds that either side may take to read why the other ends the session or the carrier."""


class RunDriver(Protocol):
    """What the run of a carrier needs of its session."""

    core: Session
    peer: str
    now: Clock
    frame_log: FrameLog | None
    """The log of frames; None when nobody looks at them."""

    @property
    def log(self) -> FilteringBoundLogger:
        """Returns the log for what there is to say of the session."""
        ...

    def kick(self) -> None:
        """Is called after every use of the core: events may wait, or something to send."""
        ...

    def on_idle(self) -> None:
        """Is called when the writer has nothing to send."""
        ...

    def close(self, error: TunnelError | None = None) -> None:
        """Ends the session; `error` is why, None means our own wish."""
        ...


class CarrierRun:
    """Moves a session's packets over one carrier.

    Attributes:
        lost: why the carrier is over; None while it is not, and when the peer ended it in order.
        over: nothing moves over the carrier any more.
        last_words: what the peer is told before the carrier ends, because the session ends with it.
    """

    __slots__ = (
        "_carrier",
        "_driver",
        "_finishing",
        "_generation",
        "_greeting",
        "_idle",
        "_paused",
        "last_words",
        "lost",
        "over",
    )

    def __init__(self, driver: RunDriver, carrier: Carrier, generation: int, greeting: bytes) -> None:
        """`generation` is what the core's `attach` returned for this carrier."""
        self.lost: CarrierLost | None = None
        self.over = False
        self.last_words = b""
        self._driver = driver
        self._carrier = carrier
        self._generation = generation
        self._greeting = greeting
        self._finishing = False
        self._idle: asyncio.Future[None] | None = None
        self._paused: asyncio.Future[None] | None = None
        """What the reader waits for while the peer has sent more than it may; None when it reads."""

    @property
    def idle(self) -> bool:
        """Returns whether the writer waits for something to send."""
        return self._idle is not None and not self._idle.done()

    async def run(self) -> CarrierLost | None:
        """Reads and writes until the carrier is over; returns `lost`, which the caller logs."""
        try:
            async with asyncio.TaskGroup() as beside:
                # The writer has the caller's task, since a task more for each of thousands of agents takes memory.
                await self._write(beside.create_task(self._read(), name=f"read {self._driver.peer}"))
        finally:
            # Both have seen to it, unless they were cancelled.
            self.lost = self.lost or (None if self.over else CarrierLost("given up by this side"))
            self._end()
        return self.lost

    def wake(self) -> None:
        """Wakes the writer: something may be there to send."""
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def finish(self) -> None:
        """Ends the carrier in order as soon as nothing is left to send."""
        self._finishing = True
        self.wake()

    def give_up(self, reason: str) -> None:
        """Closes the carrier now, for this reason unless there was one before."""
        self.lost = self.lost or CarrierLost(reason)
        self.close()

    def close(self) -> None:
        """Closes the carrier now."""
        self._carrier.close()
        self._read_on()
        self.wake()

    # Internal

    @property
    def _current(self) -> bool:
        core = self._driver.core
        return core.generation == self._generation and core.link is Link.ATTACHED

    async def _read(self) -> None:
        driver = self._driver
        try:
            while (message := await self._carrier.read()) is not None:
                if driver.frame_log is not None:
                    driver.frame_log.received(message)
                now = driver.now()
                driver.core.receive_message(self._generation, message, now)
                message = b""  # it may be half a MiB, and the next one may be long in coming
                driver.kick()
                if driver.core.read_at_s > now:
                    await self._pause(driver.core.read_at_s - now)
        except CarrierLost as lost:
            self.lost = self.lost or lost.again()
        except (RemoteProtocolError, SessionRefused) as error:
            self._fail(error)
            await self._read_out()
        except Exception as fault:  # noqa: BLE001 - whatever it is, the session must not hang on it
            self._break_down(fault)
            await self._read_out()
        self._end()

    async def _pause(self, pause_s: float) -> None:
        """Leaves what comes unread for so long, or until the carrier is closed: gRPC's window stops the peer, too."""
        loop = asyncio.get_running_loop()
        if self.over or not self._current:
            return
        self._paused = loop.create_future()
        timer = loop.call_later(pause_s, self._read_on)
        try:
            await self._paused
        finally:
            timer.cancel()
            self._paused = None

    def _read_on(self) -> None:
        if self._paused is not None and not self._paused.done():
            self._paused.set_result(None)

    async def _write(self, reader: asyncio.Task[None]) -> None:
        failed: CarrierLost | None = None
        try:
            try:
                await self._send()
            except CarrierLost:
                raise
            except Exception as fault:  # noqa: BLE001 - whatever it is, the session must not hang on it
                self._break_down(fault)
            if self.last_words:
                await self._carrier.write(self.last_words)
            if self.last_words or self._finishing:
                await self._carrier.finish()
        except (CarrierLost, ValueError) as lost:
            failed = CarrierLost(str(lost))
        if failed is not None or self.last_words:
            # A better reason, and what the peer says last, are on their way to the reader.
            await asyncio.wait({reader}, timeout=LAST_WORDS_S)
            self.lost = self.lost or failed
            self._end()

    async def _send(self) -> None:
        """Writes packets until the carrier is not the session's any more, or until all is sent that there will be."""
        driver, carrier = self._driver, self._carrier
        if self._greeting:
            await carrier.write(self._greeting)
        while self._current:
            message = driver.core.next_packet(driver.now())
            if message is not None:
                if driver.frame_log is not None:
                    driver.frame_log.sent(message)
                await carrier.write(message)
                driver.kick()
                continue
            if self._finishing:
                return
            self._idle = asyncio.get_running_loop().create_future()
            driver.on_idle()
            await self._idle

    def _end(self) -> None:
        """Closes the carrier, and lets the session wait for another, unless it was ended in order."""
        if self.over:
            return
        self.over = True
        self._carrier.close()
        self._read_on()
        driver = self._driver
        if self.lost is None and self._generation == driver.core.generation and driver.core.going_away:
            driver.close(SessionLost(f"{driver.peer} has shut down"))
        else:
            driver.core.detach(self._generation, driver.now())
        driver.kick()

    def _fail(self, error: RemoteProtocolError | SessionRefused) -> None:
        """Ends the session since the peer broke a rule or ended it, and says so on both sides."""
        log = self._driver.log
        self.lost = CarrierLost(str(error))
        if isinstance(error, SessionRefused):
            log.warning("the other side ended the session", code=error.fault.code, reason=str(error))
        else:
            log.error("the other side broke the protocol", code=error.fault.code, reason=str(error))
            self.last_words = encode_refusal(SessionRefused(str(error), error.code, fault=error.fault))
        # It is kept for as long as anybody asks why the session ended, and its traceback has the message in it.
        self._driver.close(error.with_traceback(None))

    def _break_down(self, fault: Exception) -> None:
        """Ends the session here and at the peer, since our own code failed: nobody knows what state it left."""
        self._driver.log.error("a fault in this program ends the session", code=BUG.code, exc_info=fault)
        self.lost = CarrierLost("internal error")
        self.last_words = encode_refusal(SessionRefused("internal error", Code.INTERNAL))
        self._driver.close(SessionLost("internal error"))

    async def _read_out(self) -> None:
        """Gives the last words a moment to arrive: closing the call would overtake them."""
        try:
            async with asyncio.timeout(LAST_WORDS_S):
                while await self._carrier.read() is not None:
                    pass
        except (CarrierLost, TimeoutError):
            return
