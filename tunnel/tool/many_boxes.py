"""Does the same on many boxes at once: runs a command for a table of results, or shows logs by their boxes' names."""

from __future__ import annotations

import sys
import threading
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, BinaryIO
from urllib.parse import quote, urlencode

from tunnel.core.wire.spoken import printable
from tunnel.tool.api import Api, ApiFailed
from tunnel.tool.at_once import run_at_once
from tunnel.tool.boxes import log_container, unknown_box
from tunnel.tool.remote_exec import NAMESPACE, Channel, run_command
from tunnel.tool.tables import table

MAX_KEPT_BYTES = 1024 * 1024
"""The most bytes that are kept of what a command writes on one box, for the table or for -o json."""
MAX_LINE_BYTES = 64 * 1024
"""The most bytes of a log's line that is shown under its box's name; a longer one is shown in parts."""
LOGS_AT_ONCE = 16
"""The logs that are read at the same time, unless they are followed."""


@dataclass(slots=True)
class Ran:
    """The run of a command on one box, and what came of it."""

    box: str
    exit_code: int | None = None
    """The command's exit code; None: it was not run, or lost."""
    error: str = ""
    """Why it was not run, or lost; empty otherwise."""
    output: bytearray = field(default_factory=bytearray)
    """Both of its outputs, in the order in which they came."""
    cut: bool = False
    """Whether it wrote more than is kept."""
    _switches: array[int] = field(default_factory=lambda: array("I"))
    """The offsets in `output` at which the other of the two begins; it begins with standard output."""

    def shown(self) -> dict[str, Any]:
        """Returns the run as `-o json` shows it."""
        return {
            "box": self.box,
            "exit_code": self.exit_code,
            "error": self.error or None,
            "stdout": self.of(Channel.STDOUT).decode("utf-8", "replace"),
            "stderr": self.of(Channel.STDERR).decode("utf-8", "replace"),
            "cut": self.cut,
        }

    def take(self, channel: Channel, data: bytes) -> None:
        """Keeps what the command writes, up to MAX_KEPT_BYTES."""
        room = MAX_KEPT_BYTES - len(self.output)
        self.cut = self.cut or len(data) > room
        kept = data[:room]
        if kept and len(self._switches) % 2 != (channel is not Channel.STDOUT):
            self._switches.append(len(self.output))
        self.output += kept

    def of(self, channel: Channel) -> bytes:
        """Returns what is kept of one of its outputs."""
        ends = [0, *self._switches, len(self.output)]
        first = 0 if channel is Channel.STDOUT else 1
        return b"".join(self.output[start:end] for start, end in list(pairwise(ends))[first::2])


def run_on_all(
    api: Api, boxes: Sequence[str], command: Sequence[str], at_once: int, done: Callable[[Ran], None]
) -> list[Ran]:
    """Runs a command without input on boxes, and returns the runs in the order of the boxes.

    Args:
        api: the fleet API.
        boxes: names of the boxes.
        command: program and arguments.
        at_once: on how many boxes it runs at a time.
        done: is told of each run in the order of their ends.
    """

    def run(box: str) -> Ran:
        ran = Ran(box)
        try:
            ran.exit_code = run_command(api, box, command, ran.take)
        except ApiFailed as error:
            ran.error = str(error)
        done(ran)
        return ran

    return run_at_once([partial(run, box) for box in boxes], at_once)


def results_table(results: Sequence[Ran], lines: int) -> str:
    """Returns a table of boxes, exit codes, and the first `lines` lines of what the commands wrote."""
    rows: list[Sequence[object]] = []
    for ran in results:
        told = ran.error.splitlines() or ran.output.decode("utf-8", "replace").splitlines()
        shown = [printable(line.expandtabs()) for line in told[:lines]]
        if shown and len(told) > lines:
            shown[-1] += f"  (+{len(told) - lines} lines)"
        code = "failed" if ran.exit_code is None else ran.exit_code
        rows.append((ran.box, code, shown[0] if shown else ""))
        rows += [(" ", " ", line) for line in shown[1:]]
    return table(("BOX", "EXIT", "OUTPUT"), rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """The options of reading a log."""

    follow: bool = False
    tail: int | None = None
    """How many lines from the end are wanted; None: all."""
    since_s: int | None = None
    timestamps: bool = False

    def query(self, container: str) -> str:
        """Returns the query by which the API is asked for such a log of a container."""
        items: list[tuple[str, object]] = [("container", container)]
        items += [("follow", "true")] * self.follow + [("timestamps", "true")] * self.timestamps
        items += [("tailLines", self.tail)] if self.tail is not None else []
        items += [("sinceSeconds", self.since_s)] if self.since_s is not None else []
        return urlencode(items)


def copy_log(api: Api, box: str, wanted: str, options: LogOptions, write: Callable[[bytes], None]) -> None:
    """Hands the log of a unit or a file to `write`, to its end.

    Raises:
        ApiFailed: there is none, or it broke off.
    """
    try:
        container = log_container(api, box, wanted)
    except ApiFailed as error:
        raise unknown_box(api, box, error) from error
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{quote(box, safe='')}/log?{options.query(container)}"
    with api.request("GET", path, headers={"Accept": "*/*"}) as answer:
        while data := answer.read():
            write(data)


class PrefixedLogs:
    """Shows several logs on one output, in whole lines only, each under the name of its box."""

    def __init__(self, api: Api, wanted: str, options: LogOptions, out: BinaryIO | None = None) -> None:
        self._api = api
        self._wanted = wanted
        self._options = options
        self._out = out or sys.stdout.buffer
        self._lock = threading.Lock()

    def run(self, boxes: Sequence[str]) -> dict[str, ApiFailed]:
        """Copies all logs to their ends; returns the errors, by box.

        Raises:
            OSError: nobody reads the output any more.
        """
        errors: dict[str, ApiFailed] = {}
        width = max(map(len, boxes))

        def copy(box: str) -> None:
            rest = bytearray()

            def write(data: bytes) -> None:
                rest.extend(data)
                end = rest.rfind(b"\n") + 1 or (len(rest) if len(rest) > MAX_LINE_BYTES else 0)
                self._write(f"{box:{width}} | ".encode(), bytes(rest[:end]))
                del rest[:end]

            try:
                copy_log(self._api, box, self._wanted, self._options, write)
                self._write(f"{box:{width}} | ".encode(), bytes(rest))
            except ApiFailed as error:
                errors[box] = error

        # The first whose output nobody reads ends them all; of logs that go on, each has its own turn from the start.
        run_at_once([partial(copy, box) for box in boxes], len(boxes) if self._options.follow else LOGS_AT_ONCE)
        return errors

    def _write(self, prefix: bytes, data: bytes) -> None:
        lines = data.splitlines() if data else []
        if lines:
            with self._lock:
                self._out.write(b"".join(prefix + line + b"\n" for line in lines))
                self._out.flush()
