"""Sets how log lines look, JSON for machines, coloured lines on a terminal; all of them go to standard error.

Where standard error is the journal of systemd, each line begins with its priority, `<4>` for a warning: journald takes
that away and keeps it, so that `journalctl -p warning` works and `journalctl -o cat` shows pure JSON.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson
import structlog

from tunnel.aio.process.config import LogConfig
from tunnel.aio.process.log_folding import Folding
from tunnel.aio.process.log_sink import EXIT_FLUSH_S, LogSink, SinkStream
from tunnel.core.wire.faults import LOG_LINES_LOST
from tunnel.core.wire.spoken import printable

_STDERR = 2
_PRIORITIES = {"debug": b"<7>", "info": b"<6>", "warning": b"<4>", "error": b"<3>", "critical": b"<2>"}
"""The priorities of levels, as sd-daemon(3) has them: those of syslog."""
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
"""The levels, from the one that says most to the one that says least."""


class Sink(Protocol):
    """A place that takes finished lines."""

    def write(self, line: bytes) -> None:
        """Takes one line with its newline, at once."""
        ...


def start_log(config: LogConfig) -> LogSink:
    """Begins the log of a daemon, and returns the sink through which all goes to standard error: what the daemon logs,
    and what the interpreter says.

    Call it once, before anything is logged. The end of the process waits a moment for the last lines.
    """
    terminal, journal = os.isatty(_STDERR), is_journal(_STDERR, os.environ)
    for_people = _for_people(config, terminal=terminal)
    sink = LogSink(_STDERR, lambda lost: _lost_line(lost, for_people=for_people, journal=journal))
    sys.stderr = SinkStream(sink, terminal=terminal)
    folding = configure_logs(config, sink, terminal=terminal, journal=journal)
    sink.hold(folding.due_s, folding.flush)
    atexit.register(sink.flush, EXIT_FLUSH_S)
    return sink


def is_journal(descriptor: int, environment: Mapping[str, str]) -> bool:
    """Returns whether a descriptor leads to journald: systemd names the socket that it made (systemd.exec(5))."""
    there = os.fstat(descriptor)
    return environment.get("JOURNAL_STREAM") == f"{there.st_dev}:{there.st_ino}"


def configure_logs(config: LogConfig, sink: Sink, *, terminal: bool, journal: bool = False) -> Folding:
    """Makes every logger of the process write to `sink`.

    Args:
        config: the section of the configuration.
        sink: where finished lines go.
        terminal: whether a person reads it.
        journal: whether journald does, which takes a priority from the beginning of each line.

    Returns:
        What holds lines back that say the same; the caller tells it when time has passed.
    """
    set_level(config.level)
    if _for_people(config, terminal=terminal):
        console = structlog.dev.ConsoleRenderer(colors=terminal)
        renderer: list[structlog.typing.Processor] = [_harmless, console, _encoded]
    else:
        # Without the values of variables: a token may be among them.
        traces = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        renderer = [structlog.processors.ExceptionRenderer(traces), _json]
    last: list[structlog.typing.Processor] = [structlog.processors.TimeStamper(fmt="iso", utc=True), *renderer]
    if journal:
        last.append(_with_priority)

    def tell(method: str, event: MutableMapping[str, Any]) -> None:
        line: Any = event
        for processor in last:
            line = processor(None, method, line)
        sink.write(line)

    lines = _Lines(sink)
    folding = Folding(tell, getattr(sink, "wake", lambda: None))
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, folding, *last],
        wrapper_class=_Logger,
        logger_factory=lambda *_name: lines,
        cache_logger_on_first_use=True,
    )
    return folding


def set_level(level: str) -> None:
    """Logs what is of this level (`debug`, `info`, `warning`, `error`) and above from now on, in all loggers."""
    source = structlog.make_filtering_bound_logger(LEVELS[level])
    for name in _METHODS:
        setattr(_Logger, name, getattr(source, name))


def level() -> str:
    """Returns the lowest level that is logged."""
    return next(name for name in LEVELS if getattr(_Logger, name) is not _NOTHING)


# Internal

_METHODS = [
    name for name in vars(structlog.make_filtering_bound_logger(logging.CRITICAL)) if not name.startswith("_")
]  # fmt: skip
"""The methods that a level decides: `debug`, `adebug`, `is_enabled_for`, ..."""
_NOTHING = structlog.make_filtering_bound_logger(logging.CRITICAL).debug
"""The method of each level that is not logged."""


class _Logger(structlog.make_filtering_bound_logger(logging.DEBUG)):  # type: ignore[misc]  # made at run time
    """The class of each module's logger from its first line on: binding anew at each line would cost 5 us.

    A level that changes at run time swaps the methods of this class, so that what is not logged costs nothing.
    """


class _Lines:
    """Takes rendered lines from structlog, which calls the method with the name of the line's level."""

    __slots__ = ("_sink",)

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def msg(self, line: bytes) -> None:
        self._sink.write(line)

    debug = info = warning = error = critical = msg


def _for_people(config: LogConfig, *, terminal: bool) -> bool:
    return config.format == "console" or (config.format == "auto" and terminal)


def _json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> bytes:
    return orjson.dumps(event, default=str, option=orjson.OPT_APPEND_NEWLINE)


def _harmless(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Makes values fit for a terminal, whoever said them; JSON needs nothing of that. A traceback keeps its lines."""
    for name, value in event.items():
        if isinstance(value, str) and name != "exception":
            event[name] = printable(value)
    return event


def _encoded(_logger: object, _method: str, line: Any) -> bytes:
    """Returns a line of text as bytes; it follows a renderer of text."""
    return f"{line}\n".encode(errors="backslashreplace")


def _with_priority(_logger: object, method: str, line: Any) -> bytes:
    """Returns a finished line as journald wants it; of a traceback for people each line is one."""
    priority = _PRIORITIES.get(method, _PRIORITIES["error"])
    return b"".join(priority + one for one in line.splitlines(keepends=True))


def _lost_line(lost: int, *, for_people: bool, journal: bool = False) -> bytes:
    """Returns the line that stands where others are missing."""
    text = f"{lost} log lines were lost: they could not be written"
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    priority = _PRIORITIES["warning"] if journal else b""
    if for_people:
        return priority + f"{now} [warning  ] {text} code={LOG_LINES_LOST.code}\n".encode()
    values = {"code": LOG_LINES_LOST.code, "lost": lost, "event": text, "level": "warning"}
    return priority + orjson.dumps({**values, "timestamp": now}, option=orjson.OPT_APPEND_NEWLINE)
