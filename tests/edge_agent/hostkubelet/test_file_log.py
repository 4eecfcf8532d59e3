"""Files as logs, through the API: what is in them, what comes, and what a file cannot tell."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_agent.hostkubelet.settings import HostSettings
from tests.edge_agent.hostkubelet.conftest import POD, Box, serving
from tests.support.duplex_pair import MemoryDuplex
from tunnel.aio.sockets.http1 import ClientConnection

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
    await asyncio.sleep(0.6)  # two looks
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


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("timestamps=true", "--timestamps works only with --follow --tail=0"),
        ("timestamps=true&follow=true", "--timestamps works only with --follow --tail=0"),
        ("sinceSeconds=60", "use --tail instead of --since"),
        ("sinceTime=2026-01-31T12:00:00Z", "use --tail instead of --since"),
        ("previous=true", "no previous run"),
    ],
)
async def test_what_a_file_cannot_tell(logs: Box, path: Path, query: str, text: str) -> None:
    status, _, body = await logs.get(f"{LOG}?{query}")
    assert status == 400
    assert text in json.loads(body)["message"]
    assert str(path) in json.loads(body)["message"]


async def test_a_file_that_is_not_there(logs: Box, path: Path) -> None:
    path.unlink()
    status, _, body = await logs.get(LOG)
    assert (status, json.loads(body)["reason"]) == (404, "NotFound")
