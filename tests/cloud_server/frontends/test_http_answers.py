from __future__ import annotations

import pytest

from cloud_server.frontends.http_answers import MAX_REASON_BYTES, http_status, reason_phrase
from tunnel.core.wire.errors import Code


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (Code.NOT_ALLOWED, 403),
        (Code.UNKNOWN_AGENT, 404),
        (Code.NO_SERVICE, 404),
        (Code.REFUSED, 502),
        (Code.UNREACHABLE, 502),
        (Code.NAME_NOT_FOUND, 502),
        (Code.INTERNAL, 502),
        (Code.AGENT_AWAY, 503),
        (Code.SHUTTING_DOWN, 503),
        (Code.LIMIT_EXCEEDED, 503),
        (Code.SESSION_LOST, 503),
        (Code.DEADLINE, 504),
    ],
)
def test_each_refusal_has_its_status(code: Code, status: int) -> None:
    assert http_status(code) == status


def test_every_code_has_an_error_status() -> None:
    assert all(400 <= http_status(code) < 600 for code in Code)


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("10.1.0.9:80: connection refused", "10.1.0.9:80: connection refused"),
        ("a\r\nSet-Cookie: b\r\n\r\nc", "a Set-Cookie: b c"),
        ("a\x00\x1b[31mb\x7f", "a [31mb"),
        ("  a   b  ", "a b"),
        ("Zürich", "Z rich"),
        ("", ""),
        ("x" * 5000, "x" * MAX_REASON_BYTES),
    ],
)
def test_a_reason_is_one_printable_line(text: str, phrase: str) -> None:
    assert reason_phrase(text) == phrase
