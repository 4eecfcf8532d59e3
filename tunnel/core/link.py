"""The states of a session's link and the steps between them (PROTO 7.1)."""

from __future__ import annotations

from enum import auto, unique

from tunnel.core.machine import Symbol


@unique
class Link(Symbol):
    """The state of a session's link.

    The last is CLOSED: by either side, by a fault, or by the end of its resume window.
    """

    ATTACHED = auto()
    SUSPENDED = auto()
    """The session has no carrier; the resume window runs."""
    CLOSED = auto()


@unique
class LinkInput(Symbol):
    """What changes the state of a link."""

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
