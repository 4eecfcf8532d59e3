"""A client of a fleet API that watches."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.fleet import Fleet
from tests.support.waits import scaled_s
from tunnel.aio.http.http1 import ClientConnection, Response
from tunnel.aio.sockets.conn import Conn


class Watch:
    """The events of one watch, one after the other."""

    def __init__(self, http: ClientConnection, response: Response, conn: Conn) -> None:
        self.response = response
        self.conn = conn
        self._http = http
        self._rest = b""

    async def next(self) -> tuple[str, dict[str, Any]]:
        async with asyncio.timeout(scaled_s(10)):
            while b"\n" not in self._rest:
                chunk = await self._http.read_chunk()
                assert chunk, "the watch ended"
                self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\n")
        event = json.loads(line)
        return event["type"], event["object"]

    async def names(self, count: int) -> list[tuple[str, str]]:
        events = [await self.next() for _ in range(count)]
        return [(kind, item["metadata"]["name"]) for kind, item in events]

    async def end(self) -> None:
        async with asyncio.timeout(scaled_s(10)):
            assert await self._http.read_chunk() == b""


@asynccontextmanager
async def watching(fleet: Fleet, target: str, *headers: tuple[str, str]) -> AsyncIterator[Watch]:
    """Sends a request with these headers, and reads what comes."""
    context = ssl.create_default_context(cadata=fleet.ca_pem.decode())
    loop = asyncio.get_running_loop()
    _, conn = await loop.create_connection(Conn, "127.0.0.1", fleet.port, ssl=context)
    try:
        http = ClientConnection(conn)
        yield Watch(http, await http.request("GET", target, [("host", "fleet"), *headers]), conn)
    finally:
        await conn.aclose()
        await conn.lost()
