"""Log lines: JSON for machines, readable on a terminal, without the values of variables."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from tunnel.aio.process.config import LogConfig
from tunnel.aio.process.logs import configure_logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def lines_of(monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, config: LogConfig, level: str = "warning") -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logs(config)
    getattr(structlog.get_logger("test"), level)("link lost", agent="box-7", path=Path("/a"), data=b"\xff")
    return stream.getvalue()


def test_off_a_terminal_each_line_is_json(monkeypatch: pytest.MonkeyPatch) -> None:
    text = lines_of(monkeypatch, io.StringIO(), LogConfig())
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


def test_on_a_terminal_it_is_for_people(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[" in lines_of(monkeypatch, Terminal(), LogConfig())
    structlog.reset_defaults()
    assert json.loads(lines_of(monkeypatch, Terminal(), LogConfig(format="json")))["agent"] == "box-7"
    structlog.reset_defaults()
    console = lines_of(monkeypatch, io.StringIO(), LogConfig(format="console"))
    assert "link lost" in console
    assert "\x1b[" not in console


@pytest.mark.parametrize(("level", "shown"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_levels(monkeypatch: pytest.MonkeyPatch, level: str, shown: int) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logs(LogConfig(level=level))  # type: ignore[arg-type]
    log = structlog.get_logger("test")
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("x")
    assert stream.getvalue().count("\n") == shown


def test_what_is_bound_to_the_context_is_in_every_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with structlog.contextvars.bound_contextvars(session="s-1"):
        assert json.loads(lines_of(monkeypatch, io.StringIO(), LogConfig()))["session"] == "s-1"


def test_a_traceback_is_one_line_without_the_values_of_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logs(LogConfig())
    token = "s3cret"

    def fail(secret: str) -> None:
        raise RuntimeError(f"of length {len(secret)}")

    try:
        fail(token)
    except RuntimeError:
        structlog.get_logger("test").exception("broken")
    text = stream.getvalue()
    assert text.count("\n") == 1
    assert "of length 6" in text
    assert "s3cret" not in text


def test_a_line_cannot_be_forged(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    configure_logs(LogConfig())
    structlog.get_logger("test").info("asked", target='a\n{"event": "joined"}')
    assert stream.getvalue().count("\n") == 1


def test_it_goes_to_whatever_standard_error_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", first)
    configure_logs(LogConfig())
    log = structlog.get_logger("test")
    log.info("one")
    monkeypatch.setattr(sys, "stderr", second)
    log.info("two")
    assert ("one" in first.getvalue(), "two" in second.getvalue()) == (True, True)
