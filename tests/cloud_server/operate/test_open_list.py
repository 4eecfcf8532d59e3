"""The list of what runs, of 10,000 connections: as an answer, and followed, without holding the event loop."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from cloud_server.opens.live import LiveOpen, LiveOpens
from cloud_server.operate import open_list
from cloud_server.routing.route import Route
from tests.support.doors import asking
from tests.support.pieces import pieces_s
from tests.support.waits import eventually
from tunnel.aio.operate import admin
from tunnel.core.wire.target import TcpTarget

MANY = 10_000
LONGEST_S = 0.005
"""That the loop may be held by one piece."""
OUTLIERS = 3
"""Pieces that may be longer: a page fault, or the kernel's own work, on a machine that others use too."""


class _Stream:
    """Enough of a stream to be shown."""

    resolved_address = "127.0.0.1:80"

    def __init__(self) -> None:
        self.sent = 0

    def statistics(self) -> object:
        return SimpleNamespace(bytes_sent=self.sent, bytes_received=5)


def add(live: LiveOpens, number: int) -> LiveOpen:
    one = live.begin(asking(Route(f"box-{number}", TcpTarget("127.0.0.1", 80))))
    one.stream = _Stream()  # type: ignore[assignment]
    live.opened(one)
    return one


@pytest.fixture
async def live() -> LiveOpens:
    made = LiveOpens()
    for number in range(MANY):
        add(made, number)
    return made


@pytest.fixture(autouse=True)
def no_garbage() -> Iterator[None]:
    """Its collection has its own settings in a server, and is none of what is measured here."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@asynccontextmanager
async def no_long_pieces() -> AsyncIterator[None]:
    async with pieces_s() as measured:
        yield
    longest = sorted(measured)[-OUTLIERS - 1 :]
    assert longest[0] < LONGEST_S, longest


class _Reader:
    """A client that takes whatever it is given at once, so that nobody ever waits for it."""

    def __init__(self, until: int) -> None:
        self.lines: list[dict[str, Any]] = []
        self._until = until
        self.read = asyncio.Event()

    async def start(self, *_head: object) -> None: ...

    async def finish(self) -> None: ...

    async def send(self, chunk: bytes) -> None:
        self.lines.append(orjson.loads(chunk))
        if len(self.lines) >= self._until:
            self.read.set()

    async def wait_client_gone(self) -> None:
        await self.read.wait()


async def test_an_answer_with_all_of_them(live: LiveOpens) -> None:
    async with no_long_pieces():
        body = await admin._body(admin.Listing("opens", open_list.listed(live)))
    opens = orjson.loads(body)["opens"]
    assert [one["agent"] for one in opens] == [f"box-{number}" for number in range(MANY)]


async def test_what_ends_while_it_is_listed_is_left_out(live: LiveOpens) -> None:
    listed = open_list.listed(live)
    first = await anext(listed)
    for one in list(live)[:-1]:
        live.over(one)
    others = [one["agent"] async for one in listed]  # type: ignore[index]
    assert (first["agent"], others) == ("box-0", [f"box-{MANY - 1}"])  # type: ignore[index]


async def test_they_are_followed(live: LiveOpens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_list, "MOVED_S", 0.05)
    reader = _Reader(2 * MANY)
    async with no_long_pieces():
        following = asyncio.get_running_loop().create_task(admin._stream(reader, open_list.watch(live)))  # type: ignore[arg-type]
        await eventually(lambda: len(reader.lines) == MANY, 30)
        for one in live:
            one.stream.sent = 7  # type: ignore[union-attr]
        await eventually(following.done, 30)
    changes = [line["change"] for line in reader.lines]
    assert (changes[:MANY], changes[MANY:]) == (["opened"] * MANY, ["moved"] * MANY)


async def test_what_comes_and_goes_in_the_middle_of_a_look_is_told_once(live: LiveOpens) -> None:
    ids = [one.id for one in live]
    watching: AsyncGenerator[Any, None] = open_list.watch(live)
    told: dict[str, list[str]] = {}
    async with aclosing(watching):
        for _ in range(MANY // 2):
            line = await anext(watching)
            told.setdefault(line["open"]["id"], []).append(line["change"])
        seen, unseen = ids[0], ids[-1]
        new = add(live, MANY)
        for gone in (seen, unseen):
            live.over(live.get(gone))  # type: ignore[arg-type]
        live.over(new)
        while len(told) < MANY or told.get(new.id) != ["opened", "closed"]:
            line = await anext(watching)
            told.setdefault(line["open"]["id"], []).append(line["change"])
    assert told.pop(seen) == ["opened", "closed"]
    assert told.pop(unseen) == ["opened", "closed"], "its end was told, and came with what it was"
    assert told.pop(new.id) == ["opened", "closed"]
    assert set(map(tuple, told.values())) == {("opened",)}
