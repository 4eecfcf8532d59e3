"""A daemon's life as a process: its event loop, its signals, its exit code."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable

import structlog
import uvloop

_log = structlog.get_logger("tunnel.lifecycle")

EXIT_OK = 0
EXIT_FAILED = 1


class Stop:
    """The wish to stop: set by the first SIGTERM or SIGINT. A second one cuts the drain short."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()

    @property
    def asked(self) -> bool:
        """Whether a signal came."""
        return self._asked.is_set()

    async def wait(self) -> None:
        """Wait for the first signal."""
        await self._asked.wait()

    def ask(self) -> None:
        """Stop, as the first signal does."""
        self._asked.set()


def run_daemon(main: Callable[[Stop], Awaitable[int]]) -> int:
    """Run `main` on uvloop until it returns the exit code; it waits for `Stop` and then drains.

    The second signal cancels `main`, which makes it clean up without draining; the exit code is then 1.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_guard(main))


async def _guard(main: Callable[[Stop], Awaitable[int]]) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None
    stop = Stop()

    def on_signal(number: signal.Signals) -> None:
        if stop.asked:
            _log.warning("second signal: stopping at once", signal=number.name)
            task.cancel()
        else:
            _log.info("stopping", signal=number.name)
            stop.ask()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    try:
        return await main(stop)
    except asyncio.CancelledError:
        return EXIT_FAILED
