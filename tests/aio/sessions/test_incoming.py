"""What the opener learns of each answer of an acceptor."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from tests.support.joined import TARGET, joined
from tunnel.aio.sessions.incoming import IncomingStream
from tunnel.core.wire.errors import Code, OpenRefused, StreamClosed, StreamReset


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


@pytest.mark.parametrize("fault", [ZeroDivisionError("inside"), StreamClosed("this side had finished")])
async def test_an_acceptor_that_fails_after_its_answer_resets_the_stream(fault: Exception) -> None:
    async def failing(incoming: IncomingStream) -> None:
        stream = incoming.accept()
        await stream.read()
        raise fault

    with capture_logs():
        async with joined(failing) as both:
            stream = await both.server.open(TARGET, deadline_s=5)
            await stream.write(b"x")
            with pytest.raises(StreamReset) as caught:
                await stream.read()
            assert "inside" not in str(caught.value)
            assert both.agent.core.stream_count == 0


async def test_an_acceptor_that_returns_leaves_its_stream_to_deliver_the_rest() -> None:
    async def brief(incoming: IncomingStream) -> None:
        stream = incoming.accept()
        await stream.write(b"all of it")
        await stream.write_eof()

    async with joined(brief) as both:
        stream = await both.server.open(TARGET, deadline_s=5)
        assert await stream.read() == b"all of it"
        assert await stream.read() == b""
