"""Shows how far a copy has come: a bar for a person who waits, nothing for a pipe or a log."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import Self

import click

from tunnel.tool.half_files import CopyStopped, HalfFiles

SHOW_AFTER_S = 1.0
"""The seconds until the bar is shown: a shorter copy is over before anybody could read of it."""
WIDTH = 30


class CopyProgress:
    """Counts bytes, from any thread, and shows them on standard error where that is a terminal."""

    def __init__(self, label: str, *, hidden: bool = False) -> None:
        self._label = label
        self._lock = threading.Lock()
        self._expected = 0
        self._done = 0
        self._begun_s = time.monotonic()
        self._shown_s = 0.0
        self._width = 0
        self._stopped = False
        self.half_files = HalfFiles()
        """The temporary files of the copies that it counts."""
        self._visible = not hidden and sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._width:
            self._show(time.monotonic())
            click.echo(err=True)

    def expect(self, size: int) -> None:
        """Says that `size` bytes more will be copied."""
        with self._lock:
            self._expected += size

    def stop(self) -> None:
        """Has whoever adds more bytes stop, and takes away all half files."""
        self._stopped = True
        self.half_files.give_up()

    def add(self, size: int) -> None:
        """Says that `size` bytes more have been copied.

        Raises:
            CopyStopped: no more are wanted.
        """
        if self._stopped:
            raise CopyStopped
        with self._lock:
            self._done += size
            now_s = time.monotonic()
            if self._visible and now_s - self._begun_s > SHOW_AFTER_S and now_s - self._shown_s > 0.1:
                self._show(now_s)

    def _show(self, now_s: float) -> None:
        self._shown_s = now_s
        share = min(self._done / self._expected, 1.0) if self._expected else 1.0
        rate = self._done / max(now_s - self._begun_s, 0.001)
        left_s = (self._expected - self._done) / rate if rate else 0.0
        bar = "#" * round(share * WIDTH)
        text = f"{self._label} [{bar:{WIDTH}}] {share:4.0%} {size_text(self._done)} {size_text(rate)}/s"
        text += f" {duration_text(left_s)} left" if share < 1 else ""
        click.echo(f"\r{text:{self._width}}", nl=False, err=True)
        self._width = len(text)


def size_text(count: float) -> str:
    """Returns a number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1000 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("GiB takes all")


def duration_text(seconds: float) -> str:
    """Returns a duration for people: its largest unit, or two."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"
