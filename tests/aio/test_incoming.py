"""What the opener learns of each answer of an acceptor."""

from __future__ import annotations

import pytest

from tests.support.joined import TARGET, joined
from tunnel.aio.incoming import IncomingStream
from tunnel.core.errors import Code, OpenRefused


async def test_refusal_carries_code_and_text() -> None:
    async def refusing(incoming: IncomingStream) -> None:
        incoming.refuse(Code.NOT_ALLOWED, "10.0.0.1:80 is not allowed")

    async with joined(refusing) as both:
        with pytest.raises(OpenRefused, match="not allowed") as caught:
            await both.server.open(TARGET, deadline_s=5)
        assert caught.value.code is Code.NOT_ALLOWED


async def test_acceptor_that_returns_without_an_answer_refuses() -> None:
    async def silent(incoming: IncomingStream) -> None:
        return

    async with joined(silent) as both:
        with pytest.raises(OpenRefused) as caught:
            await both.server.open(TARGET, deadline_s=5)
        assert caught.value.code is Code.INTERNAL
