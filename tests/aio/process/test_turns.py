from __future__ import annotations

import asyncio
import time

from tunnel.aio.process.turns import PIECE_S, Turns


async def test_others_have_a_turn_when_a_piece_has_lasted_and_not_before() -> None:
    turned = 0

    async def other() -> None:
        nonlocal turned
        while True:
            turned += 1
            await asyncio.sleep(0)

    others = asyncio.get_running_loop().create_task(other())
    turns = Turns()
    await turns.pause()
    assert turned == 0
    end_s = time.monotonic() + 5 * PIECE_S
    while time.monotonic() < end_s:
        await turns.pause()
    assert 1 <= turned <= 6
    others.cancel()
