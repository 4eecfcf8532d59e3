"""Log lines: JSON for machines, readable on a terminal, without the values of variables."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import subprocess
import sys
import timeit
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tests.support.waits import scaled_s
from tunnel.aio.process.config import LogConfig
from tunnel.aio.process.logs import configure_logs, level, set_level


class Lines:
    """What would be written."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, line: bytes) -> None:
        assert line.endswith(b"\n")
        self.text += line.decode()


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def lines_of(config: LogConfig, level: str = "warning", *, terminal: bool = False) -> str:
    lines = Lines()
    configure_logs(config, lines, terminal=terminal)
    getattr(structlog.get_logger("test"), level)("link lost", agent="box-7", path=Path("/a"), data=b"\xff")
    return lines.text


def test_off_a_terminal_each_line_is_json() -> None:
    text = lines_of(LogConfig())
    assert text.count("\n") == 1
    values = json.loads(text)
    assert values.pop("timestamp").endswith("Z")
    assert values == {
        "event": "link lost",
        "level": "warning",
        "agent": "box-7",
        "path": "/a",
        "data": "b'\\xff'",
    }


def test_on_a_terminal_it_is_for_people() -> None:
    assert "\x1b[" in lines_of(LogConfig(), terminal=True)
    structlog.reset_defaults()
    assert json.loads(lines_of(LogConfig(format="json"), terminal=True))["agent"] == "box-7"
    structlog.reset_defaults()
    console = lines_of(LogConfig(format="console"))
    assert "link lost" in console
    assert "\x1b[" not in console


@pytest.mark.parametrize(("level", "shown"), [("debug", 5), ("info", 4), ("warning", 3), ("error", 2)])
def test_levels(level: str, shown: int) -> None:
    lines = Lines()
    configure_logs(LogConfig(level=level), lines, terminal=False)  # type: ignore[arg-type]
    log = structlog.get_logger("test")
    for name in ("debug", "info", "warning", "error", "critical"):
        getattr(log, name)("x")
    assert lines.text.count("\n") == shown


def test_what_is_bound_to_the_context_is_in_every_line() -> None:
    with structlog.contextvars.bound_contextvars(session="s-1"):
        assert json.loads(lines_of(LogConfig()))["session"] == "s-1"


def test_a_traceback_is_one_line_without_the_values_of_variables() -> None:
    lines = Lines()
    configure_logs(LogConfig(), lines, terminal=False)
    token = "s3cret"

    def fail(secret: str) -> None:
        raise RuntimeError(f"of length {len(secret)}")

    try:
        fail(token)
    except RuntimeError:
        structlog.get_logger("test").exception("broken")
    assert lines.text.count("\n") == 1
    assert "of length 6" in lines.text
    assert "s3cret" not in lines.text


def test_a_line_cannot_be_forged() -> None:
    lines = Lines()
    configure_logs(LogConfig(), lines, terminal=False)
    structlog.get_logger("test").info("asked", target='a\n{"event": "joined"}')
    assert lines.text.count("\n") == 1


DAEMON = """
import os, sys, warnings
import structlog
from tunnel.aio.process.config import LogConfig
from tunnel.aio.process.logs import start_log
start_log(LogConfig())
structlog.get_logger("test").info("first")
print("second", file=sys.stderr)
warnings.warn("third", stacklevel=1)
structlog.get_logger("test").info("fourth")
raise ValueError("fifth, a bug at the end")
"""


def test_what_the_interpreter_says_joins_the_log_in_order_up_to_the_last_words() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DAEMON], stderr=subprocess.PIPE, text=True, timeout=scaled_s(20), check=False
    )
    assert done.returncode == 1
    places = [done.stderr.index(word) for word in ("first", "second", "third", "fourth", "ValueError: fifth")]
    assert places == sorted(places)


def test_the_level_changes_while_it_runs() -> None:
    lines = Lines()
    configure_logs(LogConfig(level="warning"), lines, terminal=False)
    log = structlog.get_logger("test")
    bound = log.bind(agent="box-7")
    log.info("one")
    set_level("debug")
    assert level() == "debug"
    log.debug("two")
    bound.info("three")
    set_level("error")
    assert level() == "error"
    log.warning("four")
    bound.error("five")
    assert [json.loads(line)["event"] for line in lines.text.splitlines()] == ["two", "three", "five"]
    assert not log.is_enabled_for(logging.INFO)


class Empty:
    def debug(self, event: str, *args: object, **fields: object) -> None:
        """As cheap as a call can be."""


def test_a_line_that_is_not_wanted_costs_what_an_empty_method_does() -> None:
    """0.13 us each as measured, where a line that is written takes 12. A module's own logger adds structlog's lazy way
    to it, another 1 us: what logs per frame binds its logger first.
    """
    configure_logs(LogConfig(level="info"), Lines(), terminal=False)
    log, empty = structlog.get_logger("test").bind(), Empty()
    ours_s = min(timeit.repeat(lambda: log.debug("frame", stream=3), number=2000, repeat=20))
    least_s = min(timeit.repeat(lambda: empty.debug("frame", stream=3), number=2000, repeat=20))
    assert ours_s < 4 * least_s


def test_the_journal_gets_the_priority_of_each_line_in_front_of_it() -> None:
    lines = Lines()
    configure_logs(LogConfig(), lines, terminal=False, journal=True)
    log = structlog.get_logger("test")
    for name in ("info", "warning", "error", "critical"):
        getattr(log, name)("x")
    found = re.findall(r"^<(\d)>(\{.*\})$", lines.text, re.MULTILINE)
    assert [(number, json.loads(line)["level"]) for number, line in found] == [
        ("6", "info"),
        ("4", "warning"),
        ("3", "error"),
        ("2", "critical"),
    ]


def test_each_line_of_a_traceback_for_people_has_the_priority() -> None:
    lines = Lines()
    configure_logs(LogConfig(format="console"), lines, terminal=False, journal=True)
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        structlog.get_logger("test").exception("it")
    assert lines.text.count("\n") > 2
    assert all(line.startswith("<3>") for line in lines.text.splitlines())


JOURNALLED = """
import structlog
from tunnel.aio.process.config import LogConfig
from tunnel.aio.process.logs import start_log
start_log(LogConfig())
structlog.get_logger("test").warning("hello")
"""


@pytest.mark.parametrize("kind", ["journal", "another socket", "file"])
def test_only_the_stream_that_systemd_made_is_the_journal(kind: str, tmp_path: Path) -> None:
    """systemd names device and inode of the socket; a program whose output was led elsewhere inherits the name."""
    ours, theirs = socket.socketpair()
    with ours, theirs, (tmp_path / "log").open("w+b") as file:
        named = os.fstat((theirs if kind != "another socket" else ours).fileno())
        environment = {**os.environ, "JOURNAL_STREAM": f"{named.st_dev}:{named.st_ino}"}
        stderr = file if kind == "file" else theirs
        argv = [sys.executable, "-c", JOURNALLED]
        subprocess.run(argv, stderr=stderr.fileno(), env=environment, timeout=scaled_s(20), check=True)
        file.seek(0)
        line = file.read() if kind == "file" else ours.recv(4096)
    assert line.startswith(b"<4>{" if kind == "journal" else b"{")
