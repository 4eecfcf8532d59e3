"""Logs of units: the arguments of journalctl to the letter, and a stand-in for it that is a real process."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge_agent.hostkubelet import journal
from edge_agent.hostkubelet.journal import journal_arguments
from edge_agent.hostkubelet.log_options import LogOptions
from edge_agent.hostkubelet.settings import HostSettings
from tests.edge_agent.hostkubelet.conftest import POD, children, serving
from tests.support.waits import eventually
from tunnel.aio.http.http1 import ClientConnection
from tunnel.core.wire.errors import StreamReset

UNIT = "nginx.service"
LOG = f"/containerLogs/default/{POD}/{UNIT}"
SETTINGS = HostSettings(units=[UNIT])
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
BASE = ["--no-pager", "--quiet", "--all"]

Stub = Callable[[str], str]


@pytest.fixture
def stub(tmp_path: Path) -> Stub:
    """Writes a journalctl that notes its arguments and then runs a script."""

    def write(script: str) -> str:
        program = tmp_path / "journalctl"
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>{shlex.quote(str(tmp_path / "calls"))}\n{script}\n')
        program.chmod(0o755)
        return str(program)

    return write


def entry(message: object, microseconds: int = 1_769_860_800_000_000) -> str:
    return json.dumps({"__REALTIME_TIMESTAMP": str(microseconds), "MESSAGE": message})


def printing(*lines: str) -> str:
    return "printf '%s\\n' " + " ".join(map(shlex.quote, lines))


# ----------------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("options", "arguments"),
    [
        (LogOptions(), ["--output=cat", "--lines=all", "--unit=nginx.service"]),
        (LogOptions(follow=True), ["--output=cat", "--lines=all", "--follow", "--unit=nginx.service"]),
        (LogOptions(tail_lines=0), ["--output=cat", "--lines=0", "--unit=nginx.service"]),
        (LogOptions(since=NOON), ["--output=cat", "--lines=all", "--since=@1769860800", "--unit=nginx.service"]),
        (
            LogOptions(since=datetime.min.replace(tzinfo=UTC)),
            ["--output=cat", "--lines=all", "--since=@0", "--unit=nginx.service"],
        ),
        (
            LogOptions(timestamps=True, tail_lines=5),
            ["--output=json", "--output-fields=MESSAGE", "--lines=5", "--unit=nginx.service"],
        ),
    ],
)
def test_arguments(options: LogOptions, arguments: list[str]) -> None:
    assert journal_arguments(UNIT, options) == [*BASE, *arguments]


def test_arguments_for_one_run() -> None:
    assert journal_arguments(UNIT, LogOptions(), "ab" * 16) == [
        *BASE,
        "--output=cat",
        "--lines=all",
        f"_SYSTEMD_INVOCATION_ID={'ab' * 16}",
        "+",
        f"INVOCATION_ID={'ab' * 16}",
        "_PID=1",
    ]


async def test_the_real_journalctl_takes_them(tmp_path: Path) -> None:
    """An empty journal: no output, and no complaint about an option."""
    program = Path("/usr/bin/journalctl")
    if not program.exists():
        pytest.skip("no journalctl here")
    async with serving(SETTINGS, journalctl=str(program)) as box:
        for query in ("", "?tailLines=3&timestamps=true", "?sinceSeconds=60"):
            status, _, body = await box.get(LOG + query)
            assert status == 200, body


# ------------------------------------------------------------------------------------------------------------- reading


async def test_a_log(stub: Stub, tmp_path: Path) -> None:
    async with serving(SETTINGS, journalctl=stub(printing("first", "second"))) as box:
        status, headers, body = await box.get(f"{LOG}?tailLines=2")
        assert (status, headers.get("content-type"), body) == (200, "text/plain", b"first\nsecond\n")
    calls = (tmp_path / "calls").read_text()
    assert calls == "--no-pager --quiet --all --output=cat --lines=2 --unit=nginx.service\n"


async def test_timestamps(stub: Stub) -> None:
    script = printing(
        entry("plain", 1_769_860_800_000_001),
        entry("two\nlines"),
        entry([104, 105, 255]),
        entry(None),
        "no json",
        json.dumps({"MESSAGE": "no time"}),
        entry("ünïcode"),
    )
    async with serving(SETTINGS, journalctl=stub(script)) as box:
        _, _, body = await box.get(f"{LOG}?timestamps=true")
    noon = b"2026-01-31T12:00:00.000000Z "
    assert body.split(b"\n") == [
        b"2026-01-31T12:00:00.000001Z plain",
        noon + b"two",
        noon + b"lines",
        noon + b"hi\xff",
        noon,
        noon + "ünïcode".encode(),
        b"",
    ]


async def test_following_until_the_client_leaves(stub: Stub) -> None:
    async with serving(SETTINGS, journalctl=stub("echo now; sleep 0.2; echo later; exec sleep 60")) as box:
        duplex = box.connect()
        http = ClientConnection(duplex)
        response = await http.request("GET", f"{LOG}?follow=true", [("host", "kubelet")])
        assert response.status == 200
        assert await http.read_chunk() == b"now\n"
        assert await http.read_chunk() == b"later\n"
        await duplex.aclose()
        await eventually(lambda: not children(), what="journalctl is gone")


async def test_following_a_silent_unit_answers_at_once(stub: Stub) -> None:
    async with serving(SETTINGS, journalctl=stub("exec sleep 60")) as box:
        http = ClientConnection(box.connect())
        response = await http.request("GET", f"{LOG}?follow=true", [("host", "kubelet")])
        assert response.status == 200


async def test_a_client_that_does_not_read_stops_journalctl(stub: Stub) -> None:
    async with serving(SETTINGS, journalctl=stub("exec dd if=/dev/zero bs=64K count=16384 status=none")) as box:
        duplex = box.connect()
        http = ClientConnection(duplex)
        await http.request("GET", LOG, [("host", "kubelet")])
        await http.read_chunk()
        (process,) = children()
        await eventually(lambda: process.io_counters().write_chars > 64 << 10, what="its pipe is full")
        assert process.io_counters().write_chars < 2 << 20


async def test_the_limit_is_in_bytes(stub: Stub) -> None:
    async with serving(SETTINGS, journalctl=stub("exec yes")) as box:
        assert (await box.get(f"{LOG}?limitBytes=5"))[2] == b"y\ny\ny"
        await eventually(lambda: not children(), what="journalctl is gone")


# ------------------------------------------------------------------------------------------------------------ failures


async def test_no_journalctl() -> None:
    async with serving(SETTINGS, journalctl="/no/journalctl") as box:
        status, _, body = await box.get(LOG)
    assert status == 503
    message = json.loads(body)["message"]
    assert message == 'this box has no journal that can be read: exec: "/no/journalctl": executable file not found'


@pytest.mark.parametrize("query", ["", "?follow=true"])
async def test_a_journalctl_that_fails_at_once(stub: Stub, query: str) -> None:
    async with serving(SETTINGS, journalctl=stub("echo 'Failed to open: denied' >&2; exit 1")) as box:
        status, _, body = await box.get(LOG + query)
    assert status == 500
    assert json.loads(body)["message"] == "journalctl failed with exit code 1: Failed to open: denied"


async def test_a_journalctl_that_fails_later_does_not_end_cleanly(stub: Stub) -> None:
    async with serving(SETTINGS, journalctl=stub("echo begun; sleep 0.1; exit 1")) as box:
        duplex = box.connect()
        http = ClientConnection(duplex)
        await http.request("GET", LOG, [("host", "kubelet")])
        with pytest.raises(StreamReset, match="exit code 1: it gave no reason"):
            await http.read_body(1 << 16)


# ------------------------------------------------------------------------------------------------------------ previous

NEW, OLD, OLDER = "aa" * 16, "bb" * 16, "cc" * 16


def with_runs(*runs: str, old_log: str = "old") -> str:
    """A journal that, read backwards, has these runs."""
    fields = ("_SYSTEMD_INVOCATION_ID", "INVOCATION_ID") * len(runs)  # the unit's own messages and those of systemd
    backwards = printing(*(json.dumps({field: run}) for field, run in zip(fields, runs, strict=False)))
    return f'case "$*" in *--reverse*) {backwards};; *) echo {old_log};; esac'


async def test_the_previous_run(stub: Stub, tmp_path: Path) -> None:
    async with serving(SETTINGS, journalctl=stub(with_runs(NEW, NEW, OLD, OLDER))) as box:
        assert (await box.get(f"{LOG}?previous=true&follow=true&tailLines=9"))[2] == b"old\n"
    found, shown = (tmp_path / "calls").read_text().splitlines()
    fields = "--output-fields=_SYSTEMD_INVOCATION_ID,INVOCATION_ID"
    assert found == f"--no-pager --quiet --output=json {fields} --reverse --unit=nginx.service"
    matches = f"_SYSTEMD_INVOCATION_ID={OLD} + INVOCATION_ID={OLD} _PID=1"
    assert shown == f"--no-pager --quiet --all --output=cat --lines=9 {matches}"


@pytest.mark.parametrize("script", [with_runs(NEW, NEW), "true"])
async def test_no_previous_run(stub: Stub, script: str) -> None:
    async with serving(SETTINGS, journalctl=stub(script)) as box:
        status, _, body = await box.get(f"{LOG}?previous=true")
    assert (status, json.loads(body)["message"]) == (400, "the journal has no previous run of nginx.service")


async def test_a_previous_run_that_is_too_far_back(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "PREVIOUS_WAIT_S", 0.3)
    async with serving(SETTINGS, journalctl=stub("exec yes")) as box:
        status, _, body = await box.get(f"{LOG}?previous=true")
        assert status == 400
        assert "use --since instead of --previous" in json.loads(body)["message"]


# ------------------------------------------------------------------------------------------- no such unit, no answer

NO_UNIT = "printf 'LoadState=not-found\\nActiveState=inactive\\n'"


@pytest.fixture
def systemctl(tmp_path: Path) -> Stub:
    """Writes a systemctl that runs a script."""

    def write(script: str) -> str:
        program = tmp_path / "systemctl"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        return str(program)

    return write


@pytest.mark.parametrize("query", ["", "?follow=true", "?timestamps=true"])
async def test_a_unit_that_does_not_exist_is_not_found(stub: Stub, systemctl: Stub, query: str) -> None:
    script = "exec sleep 60" if "follow" in query else "true"
    async with serving(SETTINGS, journalctl=stub(script), systemctl=systemctl(NO_UNIT)) as box:
        status, _, body = await box.get(LOG + query)
    assert (status, json.loads(body)["reason"]) == (404, "NotFound")
    assert "systemd knows no unit nginx.service on this box" in json.loads(body)["message"]


async def test_what_the_journal_has_of_a_unit_that_is_gone_is_shown(stub: Stub, systemctl: Stub) -> None:
    async with serving(SETTINGS, journalctl=stub("echo last words"), systemctl=systemctl(NO_UNIT)) as box:
        assert (await box.get(LOG))[::2] == (200, b"last words\n")


async def test_an_empty_log_of_a_unit_that_systemd_knows_or_does_not_tell_of(stub: Stub, systemctl: Stub) -> None:
    for script in ("printf 'LoadState=loaded\\nActiveState=active\\n'", "exit 1"):
        async with serving(SETTINGS, journalctl=stub("true"), systemctl=systemctl(script)) as box:
            assert (await box.get(LOG))[::2] == (200, b"")


async def test_a_journalctl_that_never_answers(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "ANSWER_WAIT_S", 0.1)
    async with serving(SETTINGS, journalctl=stub("exec sleep 60")) as box:
        status, _, body = await box.get(LOG)
    assert (status, json.loads(body)["message"]) == (504, "journalctl has not answered within 0.1 s")
