"""Waiting in tests: poll for a condition with a deadline that stretches on slow machines, never a plain sleep."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

FACTOR = float(os.environ.get("LONGLINE_TEST_SLOW", "1"))
"""All waits are multiplied by this: `LONGLINE_TEST_SLOW=5 make test` on a very slow machine."""


def scaled_s(seconds: float) -> float:
    """A time limit for this machine."""
    return seconds * FACTOR


class Deadline:
    """A moment of real time by which something must have happened, whatever clock the event loop uses."""

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + scaled_s(seconds)

    def passed(self) -> bool:
        return time.monotonic() >= self._at


@contextlib.contextmanager
def sooner_than(wrong_s: float, what: str) -> Iterator[None]:
    """The block must take less than the wrong way of doing the same would take.

    A limit that says how long the right way takes on a quiet machine fails beside a busy core and tells nothing; so
    `wrong_s` is what a defect costs (a dial's deadline, the silence after which a link is given up), and well above
    what the block needs.

    Raises:
        AssertionError: it took as long.
    """
    start_s = time.monotonic()
    yield
    took_s = time.monotonic() - start_s
    assert took_s < scaled_s(wrong_s), f"{what} took {took_s:.1f} s, not less than {scaled_s(wrong_s):g}"


async def eventually(condition: Callable[[], T], within_s: float = 5.0, what: str = "") -> T:
    """Poll until `condition()` is true, and return what it gave.

    Raises:
        AssertionError: it was not true within `within_s` seconds.
    """
    deadline = Deadline(within_s)
    while not (value := condition()):
        if deadline.passed():
            raise AssertionError(f"not within {scaled_s(within_s):g} s: {what or condition}")
        await asyncio.sleep(0.01)
    return value
