"""A pair of carriers without a network: queues in memory, that can be cut at any message."""

from __future__ import annotations

import asyncio

from tunnel.aio.carriers.carrier import CarrierLost


class MemoryCarrier:
    """One end; made by `carrier_pair`."""

    def __init__(self, peer: str) -> None:
        self.peer = peer
        self.other: MemoryCarrier | None = None
        self.sent = 0
        self._inbox: asyncio.Queue[bytes | CarrierLost | None] = asyncio.Queue()
        self._closed = False

    async def read(self) -> bytes | None:
        """The next message."""
        if self._closed and self._inbox.empty():
            raise CarrierLost(f"{self.peer}: closed here")
        item = await self._inbox.get()
        if isinstance(item, CarrierLost):
            raise item.again()
        return item

    async def write(self, message: bytes) -> None:
        """Hand over a message; the queue takes what comes, as gRPC's buffers do."""
        assert self.other is not None
        if self._closed:
            raise CarrierLost(f"{self.peer}: closed here")
        self.sent += 1
        if not self.other._closed:
            self.other._inbox.put_nowait(message)
        await asyncio.sleep(0)

    async def finish(self) -> None:
        """End this direction in order."""
        assert self.other is not None
        if not self.other._closed:
            self.other._inbox.put_nowait(None)

    def close(self) -> None:
        """End both at once, losing what is on its way."""
        for end in (self, self.other):
            assert end is not None
            if not end._closed:
                end._closed = True
                while not end._inbox.empty():
                    end._inbox.get_nowait()
                end._inbox.put_nowait(CarrierLost(f"{end.peer}: cut"))


def carrier_pair() -> tuple[MemoryCarrier, MemoryCarrier]:
    """Both ends of a new carrier."""
    one, two = MemoryCarrier("agent"), MemoryCarrier("server")
    one.other, two.other = two, one
    return one, two
