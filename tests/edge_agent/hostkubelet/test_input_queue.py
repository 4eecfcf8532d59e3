"""edge_agent.hostkubelet.input_queue: what goes in comes out, however small its pieces, and waits for room."""

from __future__ import annotations

import asyncio

from edge_agent.hostkubelet.input_queue import InputQueue


async def test_many_small_pieces_come_out_in_order() -> None:
    queue = InputQueue(1000)
    data = bytes(range(200))
    for one in data:
        await queue.put(bytes([one]))
    await queue.end()
    pieces = []
    while piece := await queue.get():
        pieces.append(piece)
    assert b"".join(pieces) == data
    assert len(pieces) < len(data) // 2, "small ones in a row are joined"


async def test_a_full_queue_makes_its_writer_wait_and_a_reader_lets_it_go_on() -> None:
    queue = InputQueue(4)
    await queue.put(b"full")
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(queue.put(b"more"))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        assert await queue.get() == b"full"
    assert await queue.get() == b"more"


async def test_what_nobody_wants_any_more_is_dropped() -> None:
    queue = InputQueue(4)
    await queue.put(b"full")
    await queue.discard()
    await queue.put(b"late")
    await queue.end()
    assert await queue.get() == b""
