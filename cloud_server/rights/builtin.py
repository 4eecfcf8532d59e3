"""Declares the roles and groups that need no policy file: their names, and what they may do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cloud_server.rights.ask import Verb
from tunnel.core.wire.principal import PrincipalKind

SYSTEM = "system:"
"""The beginning of the names of built-in groups. A credential that claims to be in one has no right by it."""
ADMIN = "admin"
VIEWER = "viewer"
BUILTIN_ROLES: Final[Mapping[str, frozenset[Verb] | None]] = {
    ADMIN: None,
    VIEWER: frozenset({Verb.GET, Verb.OBSERVE}),
}
"""The verbs that each built-in role allows. None stands for all verbs."""
_GROUPS: Final[Mapping[PrincipalKind, tuple[str, frozenset[Verb]]]] = {
    PrincipalKind.LOCAL_PROCESS: (
        "system:local-process", frozenset({Verb.CONNECT, Verb.OBSERVE, Verb.ADMINISTER}),
    ),
    PrincipalKind.KUBE_APISERVER: ("system:kube-apiserver", frozenset({Verb.CONNECT})),
    PrincipalKind.STATIC_FORWARD: ("system:forwards", frozenset({Verb.CONNECT})),
    PrincipalKind.AGENT: ("system:agents", frozenset({Verb.CONNECT})),
    PrincipalKind.SERVER: ("system:server", frozenset({Verb.CONNECT, Verb.GET})),
}  # fmt: skip
"""The built-in group of each kind of principal that was let in by something else than a user's credential (the mode of
a socket, the configuration, `[[expose]]`), and the verbs that it may use."""
BUILTIN_GROUPS: Final[Mapping[str, PrincipalKind]] = {group: kind for kind, (group, _) in _GROUPS.items()}
NAMED_BY_CONFIGURATION: Final = frozenset({PrincipalKind.STATIC_FORWARD, PrincipalKind.AGENT})
"""The kinds of principals whose targets stand in the configuration: a `[[forward]]` is one target, and `[[expose]]` has
to name a metadata address by itself (`Policy` in tunnel/aio/exits). So their targets are no ranges that happen to cover
such an address."""


def group_of(kind: PrincipalKind) -> str:
    """Returns the name of the built-in group of a kind of principal; empty for users, who have none."""
    return _GROUPS[kind][0] if kind in _GROUPS else ""


def may(kind: PrincipalKind, verb: Verb) -> bool:
    """Returns whether the built-in group of a kind of principal may use a verb. It is False for users."""
    return kind in _GROUPS and verb in _GROUPS[kind][1]
