"""A little HTTP CONNECT proxy, and a relay whose connections can be cut: both are TCP in between two ends."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator

from tests.support.waits import scaled_s

_Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Middle:
    """What passes through, and the means to end it."""

    def __init__(self) -> None:
        self.port = 0
        self.requests: list[str] = []
        """CONNECT targets, for a proxy."""
        self.credentials: list[str] = []
        """Proxy-Authorization headers, for a proxy."""
        self.frozen = asyncio.Event()
        """Set: nothing passes any more, and nothing is closed."""
        self.joined = 0
        """Connections that were joined to a far end, ever."""
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def open(self) -> int:
        """Connections that are joined now."""
        return len(self._writers) // 2

    def cut(self) -> None:
        """Reset every connection at once."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def join(self, near: _Streams, far: _Streams) -> None:
        """Copy both ways until either end closes."""
        self.joined += 1
        self._writers |= {near[1], far[1]}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._copy(near[0], far[1]))
                group.create_task(self._copy(far[0], near[1]))
        finally:
            for _, writer in (near, far):
                writer.transport.abort()
                self._writers.discard(writer)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if self.frozen.is_set():
                    await asyncio.Event().wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()


@contextlib.asynccontextmanager
async def relay(port: int) -> AsyncIterator[Middle]:
    """Forward a new port to `port` on loopback."""
    middle = Middle()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await middle.join((reader, writer), await asyncio.open_connection("127.0.0.1", port))

    async with _listening(middle, handle):
        yield middle


@contextlib.asynccontextmanager
async def connect_proxy(status: str = "200 OK") -> AsyncIterator[Middle]:
    """An HTTP proxy that answers CONNECT with `status`; it connects only to loopback."""
    middle = Middle()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *headers = head.split("\r\n")
        target = first.split(" ")[1]
        middle.requests.append(target)
        middle.credentials += [h.partition(": ")[2] for h in headers if h.lower().startswith("proxy-authorization")]
        writer.write(f"HTTP/1.1 {status}\r\n\r\n".encode())
        if status.startswith("200"):
            far = await asyncio.open_connection("127.0.0.1", int(target.rpartition(":")[2]))
            await middle.join((reader, writer), far)
        else:
            writer.close()

    async with _listening(middle, handle):
        yield middle


@contextlib.asynccontextmanager
async def _listening(middle: Middle, handle: object) -> AsyncIterator[None]:
    tasks: set[asyncio.Task[None]] = set()

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await handle(reader, writer)  # type: ignore[operator]
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(handled, "127.0.0.1", 0)
    middle.port = server.sockets[0].getsockname()[1]
    try:
        yield
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def proxy_beside(status: str = "200 OK") -> Iterator[Middle]:
    """`connect_proxy` in a thread of its own, for tests of processes."""
    ready, over = threading.Event(), threading.Event()
    made: list[Middle] = []

    async def serve() -> None:
        async with connect_proxy(status) as middle:
            made.append(middle)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="proxy")
    thread.start()
    try:
        assert ready.wait(scaled_s(10))
        yield made[0]
    finally:
        over.set()
        thread.join()
