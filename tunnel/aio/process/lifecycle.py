"""A daemon's life as a process: its event loop, its signals, its exit code."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import structlog

from tunnel.aio.process.outcome import EXIT_FAILED
from tunnel.core.wire.faults import PART_ENDED, STOPPED_AT_ONCE

_log = structlog.get_logger("tunnel.lifecycle")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """The wish to stop: it comes from the first SIGTERM or SIGINT, or from a part of the daemon that failed."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._drain: asyncio.Timeout | None = None
        self.failed = False
        """Whether the daemon does not end as it should: cut short by a signal, or since a part of it ended."""

    @property
    def asked(self) -> bool:
        """Returns whether somebody has asked to stop."""
        return self._asked.is_set()

    async def wait(self) -> None:
        """Waits until somebody asks to stop."""
        await self._asked.wait()

    def ask(self) -> None:
        """Asks to stop, as the first signal does."""
        self._asked.set()

    async def drain(self, work: Awaitable[None]) -> None:
        """Waits for work that may take long at the end; the second signal cuts it short.

        What comes after it must be quick.
        """
        cut = self._drain = asyncio.timeout(None)
        try:
            async with cut:
                await work
        except TimeoutError:
            if not cut.expired():
                raise
        finally:
            self._drain = None

    def cut_short(self) -> bool:
        """Ends the drain; returns False when there is none."""
        if self._drain is None or self._drain.expired():
            return False
        self.failed = True
        self._drain.reschedule(asyncio.get_running_loop().time())
        return True

    def watch(self, part: asyncio.Task[None]) -> None:
        """Asks to stop when a task ends that must run as long as the daemon: half a daemon looks well and is not."""
        part.add_done_callback(self._on_end)

    def _on_end(self, part: asyncio.Task[None]) -> None:
        if not self.asked:
            _log.error("a part of the daemon has ended, stopping", code=PART_ENDED.code, task=part.get_name())
            self.failed = True
            self.ask()


def run_daemon(main: Callable[[Stop], Awaitable[int]], last_words: Callable[[], object]) -> int:
    """Runs `main`, on uvloop where it is installed, and returns its exit code.

    It waits for `Stop`, drains through it, and cleans up.

    The second signal ends the drain, and the exit code is then 1. One that finds no drain ends the process where it
    stands: clean-up that is stuck must not need `kill -9`, and an interrupted one would only leave tracebacks.
    `last_words` is called before such an end, to write what was logged; it must not take long.
    """
    with asyncio.Runner(loop_factory=_new_event_loop) as runner:
        code = runner.run(_guard(main, last_words))
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # all is done; the exit code is to be this one
    return code


def _new_event_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:  # it has no wheels for 32-bit ARM, and does not know Windows
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _guard(main: Callable[[Stop], Awaitable[int]], last_words: Callable[[], object]) -> int:
    loop = asyncio.get_running_loop()
    stop = Stop()

    def on_signal(number: signal.Signals) -> None:
        if not stop.asked:
            _log.info("stopping", signal=number.name)
            stop.ask()
        elif stop.cut_short():
            _log.warning("second signal: what is still open is reset", code=STOPPED_AT_ONCE.code, signal=number.name)
        else:
            _log.warning("another signal: ending at once", code=STOPPED_AT_ONCE.code, signal=number.name)
            last_words()
            os._exit(EXIT_FAILED)

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    code = await main(stop)
    return EXIT_FAILED if stop.failed else code
