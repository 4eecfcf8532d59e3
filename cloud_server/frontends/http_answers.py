"""Maps the code of a refused stream to the HTTP answer that a front end's client gets."""

from __future__ import annotations

from tunnel.core.wire.errors import Code

MAX_REASON_BYTES = 300
"""The longest reason phrase, in bytes. Reason phrases go into other programs' error lines: kube-apiserver shows the
whole status line to kubectl's user.
"""

_STATUS = {
    Code.NOT_ALLOWED: 403,
    Code.UNKNOWN_AGENT: 404,
    Code.NO_SERVICE: 404,
    Code.AMBIGUOUS: 409,
    Code.REFUSED: 502,
    Code.UNREACHABLE: 502,
    Code.NAME_NOT_FOUND: 502,
    Code.AGENT_AWAY: 503,
    Code.SHUTTING_DOWN: 503,
    Code.LIMIT_EXCEEDED: 503,
    Code.SESSION_LOST: 503,
    Code.DEADLINE: 504,
}


def http_status(code: Code) -> int:
    """Returns the HTTP status for a refusal; 502 for what only the far end understands."""
    return _STATUS.get(code, 502)


def reason_phrase(text: str) -> str:
    """Returns a text as one printable line of ASCII: what an agent says must not become a header of ours."""
    printable = "".join(char if " " <= char <= "~" else " " for char in text)
    return " ".join(printable.split())[:MAX_REASON_BYTES]
