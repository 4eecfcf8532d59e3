"""A process with informers of client-go (see `informers/`), and what its handlers heard."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.e2e.cluster.build import informers
from tests.support.processes import environment
from tests.support.tunnel import wait_until

WATCH_LIST = {"KUBE_FEATURE_WatchListClient": "true", "KUBE_WATCHLIST_INCONSISTENCY_DETECTOR": "true"}
"""The environment in which client-go asks for lists by watches, and panics when a list shows anything else."""
ANSWER_S = 10.0

Store = dict[str, tuple[str, str]]
"""By namespace and name, uid and version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What one informer follows; see `informers/main.go`."""

    name: str
    resource: str
    group: str = ""
    version: str = "v1"
    labels: str = ""
    fields: str = ""
    how: str = "protobuf"
    resync_s: float = 0.0

    def as_json(self) -> dict[str, object]:
        """It, as the program takes it."""
        return {
            "name": self.name, "group": self.group, "version": self.version, "resource": self.resource,
            "labels": self.labels, "fields": self.fields, "as": self.how, "resync_s": self.resync_s,
        }  # fmt: skip


class Call(NamedTuple):
    """One of a handler."""

    word: str
    """`add`, `update`, `delete`, or `again`: an update without a change."""
    key: str
    uid: str
    version: int


class Informers:
    """Use `informing()`."""

    def __init__(
        self, kubeconfig: Path, followed: Sequence[Followed], log: Path, extra: Mapping[str, str] | None = None
    ) -> None:
        self._log = log
        self._calls: dict[str, list[Call]] = {one.name: [] for one in followed}
        self._errors: list[str] = []
        self._stores: dict[str, dict[str, dict[str, str]] | None] = {}
        """What it told last that it holds."""
        self._told = 0
        """How often it has."""
        self._rest = b""
        shown = log.with_suffix(".jsonl")
        argv = [str(informers()), str(kubeconfig), json.dumps([one.as_json() for one in followed])]
        with shown.open("wb") as output, log.open("wb") as errors:
            self._process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=output, stderr=errors, env=environment(extra)
            )
        self._shown = shown.open("rb")

    def stores(self) -> dict[str, Store | None]:
        """What each informer holds; None: it was not filled yet.

        Raises:
            AssertionError: the process has ended.
        """
        assert self._process.stdin is not None
        told = self._times_told()
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
        wait_until(lambda: self._times_told() > told or self._has_ended(), "it says what it holds", ANSWER_S)
        assert not self._has_ended(), self._log.read_text()[-3000:]
        return {name: None if store is None else _store(store) for name, store in self._stores.items()}

    def calls(self) -> dict[str, list[Call]]:
        """All that handlers heard, by informer."""
        self._read()
        return self._calls

    def errors(self) -> list[str]:
        """Why lists and watches failed."""
        self._read()
        return self._errors

    def close(self) -> None:
        """End it."""
        self._shown.close()
        self._process.kill()
        self._process.communicate()

    # Internal

    def _has_ended(self) -> bool:
        return self._process.poll() is not None

    def _times_told(self) -> int:
        self._read()
        return self._told

    def _read(self) -> None:
        """Take what it has said since."""
        *lines, self._rest = (self._rest + self._shown.read()).split(b"\n")
        for said in map(json.loads, lines):
            if "stores" in said:
                self._stores = said["stores"]
                self._told += 1
            elif "error" in said:
                self._errors.append(f"{said['informer']}: {said['error']}")
            else:
                call = Call(said["call"], said["key"], said["uid"], int(said["version"]))
                self._calls[said["informer"]].append(call)


@contextlib.contextmanager
def informing(
    kubeconfig: Path, followed: Sequence[Followed], log: Path, extra: Mapping[str, str] | None = None
) -> Iterator[Informers]:
    """A process that runs these informers.

    Args:
        kubeconfig: Of whoever asks.
        followed: What they follow.
        log: What it complains of; beside it the lines that it says.
        extra: More of its environment.
    """
    made = Informers(kubeconfig, followed, log, extra)
    try:
        yield made
    finally:
        made.close()


def faults(calls: Sequence[Call], *, resyncs: bool = False) -> list[str]:
    """What an informer's handlers should not have heard: something twice, older things after newer ones, changes of an
    object that is not there, updates without a change unless they are wanted.
    """
    found = []
    held: dict[str, Call] = {}
    for call, count in Counter(call for call in calls if call.word != "again").items():
        if count > 1:
            found.append(f"{count} times {call}")
    for call in calls:
        before = held.get(call.key)
        if call.word == "again" and not resyncs:
            found.append(f"without a change: {call}")
        if (before is None) is not (call.word == "add"):
            found.append(f"{call} after {before}")
        if before is not None and (before.uid != call.uid or call.version < before.version):
            found.append(f"{call} after {before}")
        if call.word == "delete":
            held.pop(call.key, None)
        else:
            held[call.key] = call
    return found


# Internal


def _store(shown: Mapping[str, Mapping[str, str]]) -> Store:
    return {key: (one["uid"], one["version"]) for key, one in shown.items()}
