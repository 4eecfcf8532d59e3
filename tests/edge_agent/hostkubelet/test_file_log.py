"""Files as logs, through the API: what is in them, what comes, and when their lines were written."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.hostkubelet.settings import HostSettings
from tests.edge_agent.hostkubelet.conftest import POD, Box, serving
from tests.support.duplex_pair import MemoryDuplex
from tunnel.aio.http.http1 import ClientConnection

LOG = f"/containerLogs/default/{POD}/app.log"

pytestmark = pytest.mark.may_block("the test itself writes the file")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "app.log"
    path.write_bytes(b"one\ntwo\nthree\n")
    return path


@pytest.fixture
async def logs(path: Path) -> AsyncIterator[Box]:
    async with serving(HostSettings(files=[path])) as box:
        yield box


class Follower:
    """A client of a followed log."""

    def __init__(self, duplex: MemoryDuplex) -> None:
        self.duplex = duplex
        self.http = ClientConnection(duplex)
        self.received = b""

    async def until(self, wanted: bytes) -> bytes:
        async with asyncio.timeout(10):
            while wanted not in self.received:
                chunk = await self.http.read_chunk()
                assert chunk, self.received
                self.received += chunk
        return self.received


async def follow(box: Box, query: str = "") -> Follower:
    follower = Follower(box.connect())
    response = await follower.http.request("GET", f"{LOG}?follow=true{query}", [("host", "kubelet")])
    assert response.status == 200
    return follower


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


async def test_the_whole_file_and_its_tail(logs: Box) -> None:
    assert (await logs.get(LOG))[2] == b"one\ntwo\nthree\n"
    assert (await logs.get(f"{LOG}?tailLines=2"))[2] == b"two\nthree\n"
    assert (await logs.get(f"{LOG}?tailLines=0"))[2] == b""
    assert (await logs.get(f"{LOG}?tailLines=2&limitBytes=5"))[2] == b"two\nt"


async def test_a_large_file(logs: Box, path: Path) -> None:
    data = b"".join(b"line %d\n" % number for number in range(300_000))
    path.write_bytes(data)
    assert (await logs.get(LOG))[2] == data


async def test_a_file_that_grows_for_ever_still_ends(logs: Box, path: Path) -> None:
    follower = Follower(logs.connect(capacity_bytes=1000))
    path.write_bytes(b"x" * 500_000)
    await follower.http.request("GET", LOG, [("host", "kubelet")])
    append(path, b"more" * 100)
    assert await follower.http.read_body(1 << 20) == b"x" * 500_000


async def test_following_across_a_rotation_and_a_truncation(logs: Box, path: Path) -> None:
    follower = await follow(logs, "&tailLines=1")
    await follower.until(b"three\n")
    append(path, b"fo")
    await follower.until(b"fo")
    append(path, b"ur\n")
    await follower.until(b"four\n")
    path.rename(path.with_suffix(".1"))
    path.write_bytes(b"five\n")
    await follower.until(b"five\n")
    shutil.copy(path, path.with_suffix(".2"))
    path.write_bytes(b"")
    append(path, b"six\n")
    assert await follower.until(b"six\n") == b"three\nfour\nfive\nsix\n"


async def test_a_follower_that_leaves_while_the_log_is_silent(logs: Box) -> None:
    follower = await follow(logs, "&tailLines=0")
    await follower.duplex.aclose()
    async with asyncio.timeout(5):
        await logs.serving


async def test_a_connection_that_is_cancelled_in_a_read(logs: Box) -> None:
    await follow(logs)
    logs.serving.cancel()  # the watch for leaks sees whether the file was closed


async def test_times_are_given_where_they_are_known(logs: Box, path: Path) -> None:
    follower = await follow(logs, "&tailLines=0&timestamps=true")
    append(path, b"new\n")
    line = await follower.until(b"new\n")
    assert re.fullmatch(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z new\n", line)


TIMED = b"2026-01-31 12:00:00 +0000 first\n  and more of it\n2026-01-31 12:00:05 +0000 second\n"


async def test_lines_that_were_there_have_the_time_that_they_tell_or_that_of_the_one_before(
    logs: Box, path: Path
) -> None:
    path.write_bytes(TIMED)
    lines = (await logs.get(f"{LOG}?timestamps=true"))[2].splitlines()
    assert [line.split(b" ", 1)[0] for line in lines] == [
        b"2026-01-31T12:00:00.000000Z", b"2026-01-31T12:00:00.000000Z", b"2026-01-31T12:00:05.000000Z",
    ]  # fmt: skip
    assert b"\n".join(line.split(b" ", 1)[1] for line in lines) + b"\n" == TIMED
    tail = (await logs.get(f"{LOG}?timestamps=true&tailLines=2"))[2]
    assert tail.startswith(b"2026-01-31T12:00:05.000000Z   and more of it\n")  # at the latest


async def test_lines_without_any_time_have_the_time_of_the_file(logs: Box, path: Path) -> None:
    os.utime(path, (1_769_860_800, 1_769_860_800))
    assert (await logs.get(f"{LOG}?timestamps=true"))[2] == b"".join(
        b"2026-01-31T12:00:00.000000Z " + line for line in (b"one\n", b"two\n", b"three\n")
    )


async def test_times_where_reads_end_in_the_middle_of_one(logs: Box, path: Path) -> None:
    data = b"".join(b"2026-01-31T12:%02d:%02dZ line\n" % divmod(number % 3600, 60) for number in range(10_000))
    path.write_bytes(data)
    stamped = (await logs.get(f"{LOG}?timestamps=true"))[2].splitlines(keepends=True)
    assert b"".join(line.split(b" ", 1)[1] for line in stamped) == data
    assert all(line[:19] == line.split(b" ", 1)[1][:19] for line in stamped)


async def test_since_gives_what_was_written_since(logs: Box, path: Path) -> None:
    path.write_bytes(TIMED)
    assert (await logs.get(f"{LOG}?sinceTime=2026-01-31T12:00:03Z"))[2].endswith(b"12:00:05 +0000 second\n")
    assert (await logs.get(f"{LOG}?sinceTime=2026-01-31T12:00:03Z"))[2].count(b"\n") == 1
    assert (await logs.get(f"{LOG}?sinceTime=2026-01-31T11:00:00Z&tailLines=1"))[2].count(b"\n") == 1


async def test_since_on_a_file_without_times_is_decided_by_its_own(logs: Box, path: Path) -> None:
    assert (await logs.get(f"{LOG}?sinceSeconds=60"))[2] == b"one\ntwo\nthree\n"
    os.utime(path, (1_769_860_800, 1_769_860_800))
    assert (await logs.get(f"{LOG}?sinceSeconds=60"))[2] == b""


async def test_a_file_has_no_previous_run(logs: Box, path: Path) -> None:
    status, _, body = await logs.get(f"{LOG}?previous=true")
    assert status == 400
    assert "no previous run" in json.loads(body)["message"]
    assert str(path) in json.loads(body)["message"]


async def test_all_of_a_file_is_one_stream(logs: Box) -> None:
    assert (await logs.get(f"{LOG}?stream=All"))[2] == (await logs.get(f"{LOG}?stream=Stdout"))[2] != b""
    assert (await logs.get(f"{LOG}?stream=Stderr"))[2] == b""


async def test_a_file_that_is_not_there(logs: Box, path: Path) -> None:
    path.unlink()
    status, _, body = await logs.get(LOG)
    assert (status, json.loads(body)["reason"]) == (404, "NotFound")
