"""Makes many calls at once, some at a time, in threads that nobody waits for at an interrupt.

`concurrent.futures` joins its threads when the process ends: Ctrl-C would wait for the slowest box.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


def run_at_once(calls: Sequence[Callable[[], T]], at_once: int) -> list[T]:
    """Makes all calls, at most `at_once` at a time, and returns their results in the order of the calls.

    Whatever the first one to fail raises is raised, without waiting for those that run; no further one is begun.
    """
    return _Run(calls).run(at_once)


class _Run(Generic[T]):
    def __init__(self, calls: Sequence[Callable[[], T]]) -> None:
        self._calls = list(enumerate(calls))
        self._waiting = self._calls[::-1]
        self._results: dict[int, T] = {}
        self._error: BaseException | None = None
        self._changed = threading.Condition()

    def run(self, at_once: int) -> list[T]:
        for number in range(min(at_once, len(self._calls))):
            threading.Thread(target=self._work, name=f"at once {number}", daemon=True).start()
        try:
            with self._changed:
                self._changed.wait_for(lambda: self._error is not None or len(self._results) == len(self._calls))
                if self._error is not None:
                    raise self._error
        finally:
            with self._changed:
                self._waiting.clear()
        return [self._results[number] for number, _ in self._calls]

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting or self._error is not None:
                    return
                number, call = self._waiting.pop()
            try:
                result = call()
            except BaseException as error:  # noqa: BLE001 - it is raised where the calls were asked for
                with self._changed:
                    self._error = error
                    self._changed.notify_all()
                return
            with self._changed:
                self._results[number] = result
                self._changed.notify_all()
