"""Lines that say the same again and again become two: the first, and how often it came."""

from __future__ import annotations

import json
import subprocess
import sys
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from tests.support.waits import scaled_s
from tunnel.aio.process.log_folding import MAX_KINDS, WINDOW_S, Folding


class Watched:
    """A folding with a clock of ours, and what it let pass and told."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.woken = 0
        self.folding = Folding(lambda method, event: self.told.append((method, dict(event))), self._wake, self._clock)

    def log(self, event: str, method: str = "warning", **fields: Any) -> bool:
        """Whether the line passed."""
        try:
            self.folding(None, method, {"event": event, **fields})
        except structlog.DropEvent:
            return False
        return True

    def _wake(self) -> None:
        self.woken += 1

    def _clock(self) -> float:
        return self.now_s


def test_the_first_line_passes_and_the_rest_of_ten_seconds_is_one_with_the_fields_of_the_last() -> None:
    watched = Watched()
    assert [watched.log("refused", code="LL4102", peer=f"[::1]:{n}", trace_id=f"{n:016x}") for n in range(100)] == [
        True,
        *[False] * 99,
    ]
    assert (watched.woken, watched.folding.due_s()) == (1, 100.0 + WINDOW_S)
    watched.folding.flush(100.0 + WINDOW_S - 0.1)
    assert watched.told == []
    watched.folding.flush(100.0 + WINDOW_S)
    assert watched.told == [
        (
            "warning",
            {
                "event": "refused: repeated 99 times in 10 s",
                "code": "LL4102",
                "peer": "[::1]:99",
                "trace_id": f"{99:016x}",
                "repeated": 99,
            },
        )
    ]
    assert watched.folding.due_s() is None


def test_what_goes_on_is_told_once_in_each_window_and_what_comes_back_later_passes() -> None:
    watched = Watched()
    for second in range(35):
        watched.now_s = 100.0 + second
        watched.log("away")
    assert [event["repeated"] for _, event in watched.told] == [9, 10, 10]
    while (due_s := watched.folding.due_s()) is not None:
        watched.now_s = due_s
        watched.folding.flush(due_s)
    assert sum(event["repeated"] for _, event in watched.told) == 34
    watched.now_s += WINDOW_S
    assert watched.log("away")


@pytest.mark.parametrize("other", [{"reason": "b"}, {"agent": "box-8"}, {"services": ["y"]}])
def test_a_line_that_says_something_else_passes(other: dict[str, Any]) -> None:
    watched = Watched()
    fields: dict[str, Any] = {"reason": "a", "agent": "box-7", "services": ["x"]}
    assert watched.log("refused", **fields)
    assert not watched.log("refused", **fields)
    assert watched.log("refused", **{**fields, **other})
    assert watched.log("refused", "error", **fields)


def test_debug_lines_are_never_folded() -> None:
    watched = Watched()
    assert all(watched.log("frame", "debug") for _ in range(5))


def test_what_is_watched_is_bounded_and_nothing_counted_is_lost() -> None:
    watched = Watched()
    watched.log("first")
    watched.log("first")
    for number in range(10 * MAX_KINDS):
        assert watched.log(f"line {number}")
    assert len(watched.folding._kinds) == MAX_KINDS
    assert [event["repeated"] for _, event in watched.told] == [1]
    assert watched.folding.due_s() is None


def test_the_end_of_the_process_tells_what_was_held() -> None:
    watched = Watched()
    watched.log("refused", exc_info=True)
    watched.log("refused", exc_info=True)
    watched.folding.flush()
    assert watched.told == [("warning", {"event": "refused: repeated once in 10 s", "repeated": 1})]


DAEMON = """
import structlog, sys, time
from tunnel.aio.process import log_folding
log_folding.WINDOW_S = float(sys.argv[1])
from tunnel.aio.process.config import LogConfig
from tunnel.aio.process.logs import start_log
start_log(LogConfig())
log = structlog.get_logger("test")
for number in range(100):
    log.info("refused", code="LL4102", peer=number)
print("logged", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def daemon(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-c", DAEMON, str(request.param)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(argv, text=True, **pipes) as process:  # type: ignore[call-overload]
        yield process
        process.kill()


@pytest.mark.parametrize("daemon", [0.2], indirect=True)
def test_a_quiet_process_tells_by_itself_when_the_time_is_over(daemon: subprocess.Popen[str]) -> None:
    assert daemon.stderr is not None
    first, second = (json.loads(daemon.stderr.readline()) for _ in range(2))
    assert (first["event"], first["peer"]) == ("refused", 0)
    assert (second["repeated"], second["peer"], second["code"]) == (99, 99, "LL4102")


@pytest.mark.parametrize("daemon", [1000], indirect=True)
def test_what_was_held_is_the_last_word(daemon: subprocess.Popen[str]) -> None:
    _, log = daemon.communicate("end\n", timeout=scaled_s(20))
    assert [json.loads(line).get("repeated") for line in log.splitlines()] == [None, 99]


class Broken(Exception):
    """Such as can be looked for when nobody should have it any more."""


def raised(text: str) -> Broken:
    try:
        raise Broken(text)
    except Broken as error:
        return error


def test_equal_exceptions_are_folded_and_others_are_not_and_none_is_kept() -> None:
    watched = Watched()
    first = raised("one")
    kept = weakref.ref(first)
    assert watched.log("broken", exc_info=first)
    assert not watched.log("broken", exc_info=raised("one"))
    assert watched.log("broken", exc_info=raised("two"))
    del first
    assert kept() is None
    for error, passes in ((KeyError("a"), True), (KeyError("b"), True), (KeyError("a"), False)):
        try:
            raise error
        except KeyError:
            assert watched.log("broken, too", exc_info=True) is passes


def test_a_line_that_stands_for_itself_is_never_folded() -> None:
    watched = Watched()
    assert [watched.log("> DATA 7 4096 bytes", each=True, packet=3) for _ in range(3)] == [True] * 3
