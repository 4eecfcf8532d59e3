"""Decides who may do what: the one place for it, for requests as well as for `kubectl auth can-i`."""

from __future__ import annotations

from dataclasses import dataclass

from cloud_server.frontends.fleet.interfaces import User
from cloud_server.frontends.fleet.resources import Resource, find_in_group

AUTHENTICATED = "system:authenticated"
_STRANGERS = ("", "system:anonymous")
PATHS = (
    "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/openapi/v3/*",
    "/readyz", "/version",
)  # fmt: skip
"""The paths that can be read beside resources."""
_PATH_VERBS = ("get", "head")


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """An action that a user wants to do."""

    verb: str
    group: str = ""
    resource: str = ""
    """The resource, with its subresource: `pods/exec`. Empty for a path that is no resource."""
    path: str = ""
    """The path of what is no resource; empty for a resource."""
    namespace: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision whether an action is allowed, and why."""

    allowed: bool
    reason: str


def decide(user: User, action: Action) -> Decision:
    """Decides whether a user may do something: every authenticated user may do all that this API offers, and nothing
    else.
    """
    if user.name in _STRANGERS:
        return Decision(False, "only users with a client certificate or a token may do anything")
    if "*" in (action.verb, action.group, action.resource):
        # Somebody who asks so wants to know whether nothing is out of reach; most verbs are.
        return Decision(False, "the fleet API offers some verbs on some resources: see kubectl auth can-i --list")
    if not action.resource:
        return _decide_path(user, action)
    resource = find_in_group(action.group, action.resource)
    if resource is None:
        return Decision(False, f"the fleet API has no {action.resource}")
    if action.verb not in resource.verbs:
        return Decision(False, not_offered(action.verb, resource))
    return Decision(True, f"{user.name} is an administrator")


def not_offered(verb: str, resource: Resource) -> str:
    """Returns why a verb is not there, for people."""
    offered = ", ".join(resource.verbs)
    return f"the fleet API does not offer {verb} on {resource.name}, only {offered}; {resource.origin}"


# Internal


def _decide_path(user: User, action: Action) -> Decision:
    known = any(
        action.path == path or (path.endswith("*") and action.path.startswith(path.removesuffix("*"))) for path in PATHS
    )
    if not known or action.verb not in _PATH_VERBS:
        return Decision(False, f"the fleet API does not offer {action.verb} on {action.path or 'this path'}")
    return Decision(True, f"{user.name} is an administrator")
