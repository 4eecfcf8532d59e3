from __future__ import annotations

from datetime import timedelta

from structlog.testing import capture_logs

from edge_agent.link.clock import ClockWatch


async def test_a_wrong_clock_is_told_once_and_so_is_its_end() -> None:
    watch = ClockWatch()
    with capture_logs() as logs:
        for seconds in (1, 100, -600, -600, 3, 3, 900):
            watch.look(timedelta(seconds=seconds))
    assert [line["event"] for line in logs] == ["the clock is wrong", "the clock is right again", "the clock is wrong"]
    assert "10 minutes behind the server's (this machine's clock says 20" in logs[0]["reason"]
    assert "15 minutes ahead of the server's" in logs[2]["reason"]
