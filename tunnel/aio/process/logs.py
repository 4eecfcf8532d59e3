"""How log lines look, JSON for machines, coloured lines on a terminal, and that all of them go to standard error."""

from __future__ import annotations

import atexit
import logging
import os
import sys
from collections.abc import MutableMapping
from datetime import UTC, datetime
from typing import Any, Protocol

import orjson
import structlog

from tunnel.aio.process.config import LogConfig
from tunnel.aio.process.log_sink import EXIT_FLUSH_S, LogSink, Lost, SinkStream

AUDIT = "audit"
"""The name of the loggers whose lines are audit records."""
_STDERR = 2
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class Sink(Protocol):
    """What takes finished lines."""

    def write(self, line: bytes, *, audit: bool = False) -> None:
        """Take one line with its newline, at once."""
        ...


def start_log(config: LogConfig) -> LogSink:
    """Begin the log of a daemon: what it logs, and what the interpreter says, goes through one sink to standard error.

    Call once, before anything is logged. The end of the process waits a moment for the last lines.
    """
    terminal = os.isatty(_STDERR)
    for_people = _for_people(config, terminal=terminal)
    sink = LogSink(_STDERR, lambda lost: _lost_line(lost, for_people=for_people))
    atexit.register(sink.flush, EXIT_FLUSH_S)
    sys.stderr = SinkStream(sink, terminal=terminal)
    configure_logs(config, sink, terminal=terminal)
    return sink


def configure_logs(config: LogConfig, sink: Sink, *, terminal: bool) -> None:
    """Make every logger of the process write to `sink`; `terminal`: whether a person reads it."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    set_level(config.level)
    if _for_people(config, terminal=terminal):
        renderer: list[structlog.typing.Processor] = [structlog.dev.ConsoleRenderer(colors=terminal), _encoded]
    else:
        # Without the values of variables: a token may be among them.
        traces = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        renderer = [structlog.processors.ExceptionRenderer(traces), _json]
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=_Logger,
        logger_factory=lambda *name: _Lines(sink, audit=name == (AUDIT,)),
        cache_logger_on_first_use=True,
    )


def set_level(level: str) -> None:
    """Log what is of this level (`debug`, `info`, `warning`, `error`) and above from now on, in all loggers."""
    source = structlog.make_filtering_bound_logger(_LEVELS[level])
    for name in _METHODS:
        setattr(_Logger, name, getattr(source, name))


def level() -> str:
    """Returns the level that is logged, and above."""
    return next(name for name in _LEVELS if getattr(_Logger, name) is not _NOTHING)


# Internal

_METHODS = [
    name for name in vars(structlog.make_filtering_bound_logger(logging.CRITICAL)) if not name.startswith("_")
]  # fmt: skip
"""All that a level decides: `debug`, `adebug`, `is_enabled_for`, ..."""
_NOTHING = structlog.make_filtering_bound_logger(logging.CRITICAL).debug
"""What the method of a level that is not logged is."""


class _Logger(structlog.make_filtering_bound_logger(logging.DEBUG)):  # type: ignore[misc]  # made at run time
    """What each module's logger becomes at its first line, and stays: binding anew at each line would cost 5 us.

    A level that changes at run time swaps the methods of this class, so that what is not logged costs nothing.
    """


class _Lines:
    """What structlog hands a rendered line to, by the name of its level."""

    __slots__ = ("_audit", "_sink")

    def __init__(self, sink: Sink, *, audit: bool) -> None:
        self._sink = sink
        self._audit = audit

    def msg(self, line: bytes) -> None:
        self._sink.write(line, audit=self._audit)

    debug = info = warning = error = critical = msg


def _for_people(config: LogConfig, *, terminal: bool) -> bool:
    return config.format == "console" or (config.format == "auto" and terminal)


def _json(_logger: object, _method: str, event: MutableMapping[str, Any]) -> bytes:
    return orjson.dumps(event, default=str, option=orjson.OPT_APPEND_NEWLINE)


def _encoded(_logger: object, _method: str, line: Any) -> bytes:
    """After a renderer of text."""
    return f"{line}\n".encode(errors="backslashreplace")


def _lost_line(lost: Lost, *, for_people: bool) -> bytes:
    """The line that stands where others are missing."""
    records = f", {lost.audit_records} of them audit records" if lost.audit_records else ""
    text = f"{lost.lines} log lines were lost{records}: they could not be written"
    now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    if for_people:
        return f"{now} [warning  ] {text}\n".encode()
    values = {"lost": lost.lines, "lost_audit_records": lost.audit_records, "event": text, "level": "warning"}
    return orjson.dumps({**values, "timestamp": now}, option=orjson.OPT_APPEND_NEWLINE)
