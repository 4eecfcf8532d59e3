"""Long work in the event loop, in pieces: everybody else has a turn in between."""

from __future__ import annotations

import asyncio

PIECE_S = 0.002
"""How long one piece may hold the event loop. A keystroke that waits for it does not notice; a turn that nobody wants
costs some 10 us.
"""


class Turns:
    """Measures the pieces of one work: call `pause` often, it is cheap."""

    __slots__ = ("_loop", "_until_s")

    def __init__(self) -> None:
        """Begins the first piece."""
        self._loop = asyncio.get_running_loop()
        self._until_s = self._loop.time() + PIECE_S

    async def pause(self) -> None:
        """Gives others a turn when the piece has lasted long enough; else it does nothing."""
        if self._loop.time() >= self._until_s:
            await asyncio.sleep(0)
            self._until_s = self._loop.time() + PIECE_S
