"""Parses the query of a log request: what `kubectl logs` can ask for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from edge_agent.hostkubelet.status import KubeletError

_STREAMS = ("All", "Stdout", "Stderr")


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """The options of a log request: what part of a log is wanted, and how."""

    follow: bool = False
    tail_lines: int | None = None
    """How many of the last lines are wanted; None: all from the start."""
    since: datetime | None = None
    """The time, with its zone, from which lines are wanted; None: from the start."""
    timestamps: bool = False
    previous: bool = False
    limit_bytes: int | None = None
    """The most bytes that are wanted; None: no limit."""
    errors_only: bool = False
    """Whether only what was written to stderr is wanted (`stream=Stderr`), which is nothing here, where all is one
    stream."""


def parse_log_options(query: Iterable[tuple[str, str]], now: datetime) -> LogOptions:
    """Reads the query of a log request; parameters of other kubelets are ignored, as a kubelet does.

    Args:
        query: names and values; the first value of each name counts.
        now: the time from which `sinceSeconds` counts back.

    Raises:
        KubeletError: 400, a value makes no sense.
    """
    values: dict[str, str] = {}
    for name, value in query:
        values.setdefault(name, value)
    since = _time(values, "sinceTime")
    if (since_s := _number(values, "sinceSeconds", least=1)) is not None:
        if since is not None:
            raise KubeletError(400, "at most one of sinceTime and sinceSeconds may be given")
        since = _before(now, since_s)
    return LogOptions(
        follow=_flag(values, "follow"),
        tail_lines=_number(values, "tailLines", least=0),
        since=since,
        timestamps=_flag(values, "timestamps"),
        previous=_flag(values, "previous"),
        limit_bytes=_number(values, "limitBytes", least=1),
        errors_only=_stream(values) == "Stderr",
    )


def _stream(values: dict[str, str]) -> str:
    stream = values.get("stream") or "All"
    if stream not in _STREAMS:
        raise KubeletError(400, f"stream must be one of {', '.join(_STREAMS)}")
    return stream


def _flag(values: dict[str, str], name: str) -> bool:
    # As Kubernetes reads them (Convert_Slice_string_To_bool): whatever is not false is true, `?follow` too.
    return name in values and values[name].lower() not in ("false", "0")


def _number(values: dict[str, str], name: str, least: int) -> int | None:
    text = values.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) >= least):
        raise KubeletError(400, f"{name} must be a whole number of at least {least}")
    return int(text)


def _time(values: dict[str, str], name: str) -> datetime | None:
    text = values.get(name, "")
    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise KubeletError(400, f"{name} must be a time such as 2026-01-31T12:00:00Z")
    return time


def _before(now: datetime, seconds: int) -> datetime:
    try:
        return now - timedelta(seconds=seconds)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)
