"""Checks what a request says it is for: the target of its first line, and its Host.

The grammar is that of RFC 9112 3.2 and RFC 3986. What does not keep to it is refused, not guessed at: two programs that
read such a target differently, one of which decides what is allowed, are a hole.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

_VISIBLE = re.compile(r"[!-~]+")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_URL = re.compile(r"https?://([^/?]*)", re.IGNORECASE)
_AUTHORITY = re.compile(r"(?:\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~%-]+)?\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(?::([0-9]{0,5}))?")
_MAX_PORT = 65535


def check_target(method: str, target: str) -> None:
    """Checks the target of a request's first line. That of a CONNECT is left to whoever serves it.

    Raises:
        ValueError: it has none of the forms of HTTP; the text says what is wrong, and repeats nothing of it.
    """
    if not _VISIBLE.fullmatch(target):
        raise ValueError("the request's target has characters that must be encoded, such as blanks")
    if method == "CONNECT" or (method == "OPTIONS" and target == "*"):
        return
    if not target.startswith("/"):
        url = _URL.match(target)
        if url is None:
            raise ValueError("the request's target is neither a path nor an http:// URL")
        if not url[1] or not _is_authority(url[1]):
            raise ValueError("the URL in the request's first line names no host that can be read")
    path, _, query = target.partition("?")
    for part, text in (("path", path), ("query", query)):
        if "#" in text or _BAD_ESCAPE.search(text):
            raise ValueError(f"the request's {part} is not encoded as it must be: write % as %25 and # as %23")
        if "%" in text and not _is_utf8(text):
            raise ValueError(f"the request's {part} is not UTF-8")


def check_host(host: str) -> None:
    """Checks the value of a Host header, or of HTTP/2's `:authority`. It may be empty.

    Raises:
        ValueError: it is no host with or without a port.
    """
    if not _is_authority(host.strip()):
        raise ValueError("the request's Host is no host that can be read")


# Internal


def _is_authority(text: str) -> bool:
    match = _AUTHORITY.fullmatch(text)
    return match is not None and int(match[1] or 0) <= _MAX_PORT


def _is_utf8(text: str) -> bool:
    try:
        unquote_to_bytes(text).decode()
    except UnicodeDecodeError:
        return False
    return True
