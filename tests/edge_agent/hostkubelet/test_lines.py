"""Lines from chunks that end anywhere."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.hostkubelet import lines
from edge_agent.hostkubelet.lines import LineSplitter, LineStamper

NOON = datetime(2026, 1, 31, 12, 0, 0, 42, UTC)
STAMP = b"2026-01-31T12:00:00.000042Z "
CHUNKS = st.lists(st.sampled_from([b"", b"\n", b"a", b"bc\n", b"\n\n", b"d\ne", b"f\n\ng"]), max_size=12)


@given(CHUNKS)
def test_lines_do_not_depend_on_chunks(chunks: list[bytes]) -> None:
    splitter = LineSplitter()
    found = [line for chunk in chunks for line in splitter.feed(chunk)]
    assert found == b"".join(chunks).split(b"\n")[:-1]


@given(CHUNKS)
def test_stamps_do_not_depend_on_chunks(chunks: list[bytes]) -> None:
    stamper = LineStamper()
    stamped = b"".join(stamper.stamp(chunk, lambda _: NOON) for chunk in chunks)
    assert stamped == b"".join(STAMP + line for line in b"".join(chunks).splitlines(keepends=True))


def test_a_time_that_many_lines_have_is_written_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[datetime] = []

    def rfc3339(time: datetime, real: Callable[[datetime], bytes] = lines.rfc3339) -> bytes:
        written.append(time)
        return real(time)

    monkeypatch.setattr(lines, "rfc3339", rfc3339)
    later = NOON + timedelta(seconds=1)
    stamped = LineStamper().stamp(b"\n" * 1000 + b"x\n" * 2, lambda line: later if line == b"x\n" else NOON)
    assert written == [NOON, later]
    assert stamped == (STAMP + b"\n") * 1000 + 2 * b"2026-01-31T12:00:01.000042Z x\n"


def test_a_line_beyond_the_limit_is_left_out(monkeypatch: object) -> None:
    splitter = LineSplitter()
    limit = lines.MAX_LINE_BYTES
    whole = [
        b"first\n",
        *([b"x" * 65536] * (limit // 65536 + 2)),
        b"end of it\nnext\n",
        b"y" * (limit + 1) + b"\n",
        b"last\n",
    ]
    assert [line for chunk in whole for line in splitter.feed(chunk)] == [b"first", b"next", b"last"]
