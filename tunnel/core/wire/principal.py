"""Who a stream is opened for, as one end tells the other (PROTO 5.9)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class PrincipalKind(IntEnum):
    """What somebody who asks for a stream is.

    The numbers travel on the wire; one that a build does not know is UNKNOWN.
    """

    UNKNOWN = 0
    USER = 1
    """A person or a program of theirs, known by a certificate or a token."""
    AGENT = 2
    """A box."""
    SERVER = 3
    """The cloud server itself, on nobody's behalf."""
    KUBE_APISERVER = 4
    """A Kubernetes API server, known by its protocol on a socket that only it may open."""
    LOCAL_PROCESS = 5
    """Whoever may open a unix socket or a loopback port of this machine."""
    STATIC_FORWARD = 6
    """A port that the operator has configured; nobody was asked who they are."""

    @property
    def label(self) -> str:
        """Returns how the kind is written in logs, such as `static_forward`."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Somebody who asks for a stream, and how it was proved who that is. Empty texts mean that it is not known."""

    kind: PrincipalKind
    name: str
    groups: tuple[str, ...] = ()
    proof: str = ""
    """The credential that proved it, such as `certificate:5f3a`, `token:9c21` or `uid:0`: what to look for in the
    lists.
    """

    def __str__(self) -> str:
        return f"{self.kind.label}:{self.name}"


NOBODY = Principal(kind=PrincipalKind.UNKNOWN, name="")
"""The principal of a stream for which the peer did not say whom it asks for."""
