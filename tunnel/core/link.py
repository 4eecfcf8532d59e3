"""The life of a session's link (PROTO 7.1)."""

from __future__ import annotations

from enum import auto, unique

from tunnel.core.machine import Symbol


@unique
class Link(Symbol):
    """Where a session stands. It finishes when it is CLOSED: by either side, a fault, or the end of its window."""

    ATTACHED = auto()
    SUSPENDED = auto()
    """No carrier; the resume window runs."""
    CLOSED = auto()


@unique
class LinkInput(Symbol):
    """What moves it."""

    ATTACH = auto()
    DETACH = auto()
    CLOSE = auto()


LINK: dict[tuple[Link, LinkInput], Link] = {
    (Link.ATTACHED, LinkInput.DETACH): Link.SUSPENDED,
    (Link.ATTACHED, LinkInput.ATTACH): Link.ATTACHED,
    (Link.SUSPENDED, LinkInput.ATTACH): Link.ATTACHED,
    (Link.ATTACHED, LinkInput.CLOSE): Link.CLOSED,
    (Link.SUSPENDED, LinkInput.CLOSE): Link.CLOSED,
}
