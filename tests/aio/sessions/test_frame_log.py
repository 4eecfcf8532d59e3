"""tunnel.aio.sessions.frame_log: a line for each frame, of one session, for as long as was asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from structlog.testing import capture_logs

from tests.support.joined import TARGET, echo, joined
from tests.support.waits import eventually


def frames_in(lines: Sequence[Any]) -> list[str]:
    return [line["event"] for line in lines if line["event"][:1] in "<>"]


async def test_frames_are_shown_while_it_is_on_and_never_before_or_after() -> None:
    async with joined(echo) as both:
        with capture_logs() as before:
            await (await both.server.open(TARGET, deadline_s=5)).aclose()
        assert not frames_in(before)

        both.server.log_frames(600)
        with capture_logs() as during:
            stream = await both.server.open(TARGET, deadline_s=5)
            await stream.write(b"secret")
            assert await stream.read() == b"secret"
        shown = frames_in(during)
        assert any(text.startswith(f"> OPEN {stream.id} {TARGET} ") for text in shown)
        assert any(text.startswith(f"< ACCEPT {stream.id} 10.0.0.1:80") for text in shown)
        assert f"> DATA {stream.id} 6 bytes" in shown
        assert f"< DATA {stream.id} 6 bytes" in shown
        assert not any("secret" in text for text in shown)
        assert {line["session"] for line in during if line["event"] in shown} == {both.server.label}

        both.server.log_frames(0)
        with capture_logs() as after:
            await stream.aclose()
        assert not frames_in(after)


async def test_it_goes_off_by_itself() -> None:
    async with joined(echo) as both:
        both.server.log_frames(60)
        both.server.log_frames(0.01)
        await eventually(lambda: both.server.frame_log is None, what="the frame log is off")


async def test_a_message_that_is_no_packet_is_a_line_too() -> None:
    async with joined(echo) as both:
        both.server.log_frames(60)
        assert both.server.frame_log is not None
        with capture_logs() as lines:
            both.server.frame_log.received(b"\xff\xff")
        (line,) = lines
        assert line["event"] == "< a message that breaks the protocol"
        assert line["bytes"] == 2
