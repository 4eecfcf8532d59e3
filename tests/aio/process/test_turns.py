from __future__ import annotations

import asyncio

from tunnel.aio.process.turns import PIECE_S, Turns


class _Clock:
    """Stands for the event loop, whose clock is all that `Turns` asks it for."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def time(self) -> float:
        return self.now_s


async def test_others_have_a_turn_when_a_piece_has_lasted_and_not_before() -> None:
    clock, turned = _Clock(), 0

    async def other() -> None:
        nonlocal turned
        while True:
            turned += 1
            await asyncio.sleep(0)

    others = asyncio.get_running_loop().create_task(other())
    try:
        turns = Turns()
        turns._loop = clock  # type: ignore[assignment]
        turns._until_s = clock.now_s + PIECE_S
        for piece in range(1, 4):
            for _ in range(4):
                clock.now_s += PIECE_S / 5
                await turns.pause()
            assert turned == piece - 1
            clock.now_s += PIECE_S / 4
            await turns.pause()
            assert turned == piece
    finally:
        others.cancel()
