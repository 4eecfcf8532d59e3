"""What comes of an API server that is slow to begin, and whose watches end with their last word."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from edge_agent.autonomy.asks import Scope
from edge_agent.autonomy.upward import upstream as module
from edge_agent.autonomy.upward.calls import Body, Calls
from edge_agent.autonomy.upward.passing import Unreached
from edge_agent.autonomy.upward.uplink import Way
from edge_agent.autonomy.upward.upstream import Upstream
from tunnel.aio.http.http1 import ClientConnection, Response
from tunnel.core.wire.errors import Code

PODS = Scope(who="node", group="", version="v1", resource="pods", namespace="", label_selector="", field_selector="",
             encoding="json")  # fmt: skip
GONE = json.dumps({"type": "ERROR", "object": {"kind": "Status", "code": 410}}).encode() + b"\n"


class Up:
    is_up = True

    def heard(self) -> None:
        """It is there."""

    def doubt(self) -> None:
        """Nobody minds."""


class Wire:
    """A connection on which these pieces come."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    async def read(self, _max_bytes: int = 65536) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    async def write(self, data: bytes | memoryview) -> None:
        """Nobody reads it."""

    async def write_eof(self) -> None:
        """Nobody reads it."""

    async def aclose(self) -> None:
        """Nothing is held."""

    def reset(self, code: Code = Code.CANCELLED, text: str = "") -> None:
        """Nothing is held."""


class Plain:
    """Calls over HTTP/1.1, whose answers are one chunk with the end in the same packet, or in another."""

    def __init__(self, *, together: bool) -> None:
        self.together = together

    @asynccontextmanager
    async def get(self, *_: object) -> AsyncIterator[tuple[Response, Body]]:
        chunk, end = b"%x\r\n%b\r\n" % (len(GONE), GONE), b"0\r\n\r\n"
        head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        http = ClientConnection(Wire([head, chunk + end] if self.together else [head, chunk, end]))
        await http.start("GET", "/", [("host", "x")])
        await http.finish()
        yield await http.response(), http


class Silent:
    @asynccontextmanager
    async def get(self, *_: object) -> AsyncIterator[tuple[Response, Body]]:
        await asyncio.Event().wait()
        yield cast("tuple[Response, Body]", None)


def upstream(calls: object) -> Upstream:
    return Upstream(cast("Calls", calls), cast("Way", Up()), "api:6443")


@pytest.mark.parametrize("together", [False, True])
async def test_the_last_event_is_heard_although_the_end_comes_with_it(together: bool) -> None:
    """The last word of a watch may be that the past is forgotten (410): unheard, the list would stay as it is."""
    async with upstream(Plain(together=together)).watch(PODS, 5, 60) as events:
        told = [one async for batch in events for one in batch]
    assert [(one.kind, (one.error or {}).get("code")) for one in told] == [("ERROR", 410)]


async def test_a_watch_that_does_not_begin_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LIST_S", 0.05)
    async with asyncio.timeout(10):
        with pytest.raises(Unreached):
            async with upstream(Silent()).watch(PODS, 5, 60):
                raise AssertionError
