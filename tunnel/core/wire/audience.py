"""Tells for whom a rule of a box is: users and groups, by name or pattern. Without either it is for everybody."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from tunnel.core.wire.globs import is_wild, matches, matches_any
from tunnel.core.wire.principal import Principal, PrincipalKind

SYSTEM = "system:"
"""The beginning of the names of built-in groups. A credential that claims to be in such a group is not in it."""
GROUP_OF_KIND: Final[Mapping[PrincipalKind, str]] = {
    PrincipalKind.LOCAL_PROCESS: "system:local-process",
    PrincipalKind.KUBE_APISERVER: "system:kube-apiserver",
    PrincipalKind.STATIC_FORWARD: "system:forwards",
    PrincipalKind.AGENT: "system:agents",
    PrincipalKind.SERVER: "system:server",
}
"""The built-in group of each kind of principal that is no user. A kind that is not here is in no group."""


class Closeness(IntEnum):
    """How closely a rule names somebody; a smaller number is closer."""

    USER = 0
    """The rule has exactly the user's name."""
    USER_GLOB = 1
    """The rule has a pattern that fits the user's name."""
    GROUP = 2
    """The rule has a group of the user, or a pattern that fits one."""
    EVERYBODY = 3
    """The rule names nobody."""


@dataclass(frozen=True, slots=True)
class Audience:
    """The users and groups that a rule is for; with neither it is for everybody."""

    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def closeness(self, principal: Principal) -> Closeness | None:
        """Returns how closely the rule names somebody; None when the rule is for others."""
        if not self.users and not self.groups:
            return Closeness.EVERYBODY
        if principal.kind is PrincipalKind.USER:
            if any(user == principal.name and not is_wild(user) for user in self.users):
                return Closeness.USER
            if any(matches(user, principal.name) for user in self.users):
                return Closeness.USER_GLOB
        if any(matches_any(self.groups, group) for group in groups_of(principal)):
            return Closeness.GROUP
        return None

    def includes(self, principal: Principal) -> bool:
        """Returns whether the rule is for somebody."""
        return self.closeness(principal) is not None


EVERYBODY: Final = Audience()


def groups_of(principal: Principal) -> tuple[str, ...]:
    """Returns the groups that somebody is in. For a principal that is no user it is the group of its kind."""
    if principal.kind is not PrincipalKind.USER:
        group = GROUP_OF_KIND.get(principal.kind)
        return (group,) if group is not None else ()
    return tuple(group for group in principal.groups if not group.startswith(SYSTEM))
