"""Who may do what: the one place that decides, for requests as well as for `kubectl auth can-i`."""

from __future__ import annotations

from dataclasses import dataclass

from cloud_server.frontends.fleet.interfaces import User
from cloud_server.frontends.fleet.resources import find_in_group


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What a user wants to do."""

    verb: str
    group: str = ""
    resource: str = ""
    """With its subresource: `pods/exec`. Empty for a path that is no resource."""
    namespace: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether it is allowed, and why."""

    allowed: bool
    reason: str


def decide(user: User, action: Action) -> Decision:
    """Whether a user may do something. Every authenticated user may do all that this API offers."""
    if action.resource in ("", "*") or action.group == "*":
        return Decision(True, f"{user.name} is an administrator")
    resource = find_in_group(action.group, action.resource)
    if resource is None:
        return Decision(False, f"the fleet API has no {action.resource}")
    if action.verb != "*" and action.verb not in resource.verbs:
        offered = ", ".join(resource.verbs)
        return Decision(False, f"the fleet API does not offer {action.verb} on {action.resource}, only {offered}")
    return Decision(True, f"{user.name} is an administrator")
