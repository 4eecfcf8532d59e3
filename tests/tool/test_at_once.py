"""Calls at once: their order, how many, and the first failure."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import pytest

from tunnel.tool.at_once import run_at_once


def test_results_are_in_the_order_of_the_calls() -> None:
    gates = [threading.Event() for _ in range(3)]

    def call(number: int) -> int:
        if number < 2:
            gates[number + 1].wait(10)  # the first ends last
        gates[number].set()
        return number

    assert run_at_once([partial(call, number) for number in range(3)], 3) == [0, 1, 2]
    assert run_at_once([], 3) == []


def test_no_more_than_so_many_run() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def call() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.001)
        with lock:
            running -= 1

    run_at_once([call] * 100, 4)
    assert 1 < most <= 4


def test_the_first_failure_begins_no_more_and_waits_for_nobody() -> None:
    hang, begun = threading.Event(), list[int]()

    def fail() -> None:
        raise ValueError("no")

    calls: list[Callable[[], object]] = [partial(hang.wait, 10), fail, *[partial(begun.append, 1)] * 50]
    with pytest.raises(ValueError, match="no"):
        run_at_once(calls, 2)
    hang.set()
    assert begun == []
