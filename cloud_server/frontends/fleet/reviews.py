"""Answers questions about rights: `kubectl auth can-i`, `auth can-i --list`, `auth whoami`, and those about other
users.
"""

from __future__ import annotations

from cloud_server.frontends.fleet.access import Access
from cloud_server.frontends.fleet.actions import PATHS, REVIEWS_OF_OTHERS, Action
from cloud_server.frontends.fleet.refusals import why
from cloud_server.frontends.fleet.resources import RESOURCES, find_in_group
from cloud_server.trust.caller import UNLIMITED, Caller, Scope
from tunnel.core.wire.globs import MAX_GLOB_CHARS
from tunnel.core.wire.principal import Principal, PrincipalKind
from tunnel.kubeapi.status import ApiError, Json, invalid

AUTHENTICATED = "system:authenticated"
"""The group of everybody who has a credential; the policy has no rights for it."""
SOME_ONLY = "some of this is for some boxes, containers, ports or persons only: ask with a name"
_GROUP = "authorization.k8s.io"


def review(kind: str, body: Json, caller: Caller, access: Access) -> Json:
    """Answers a review object with the same object and its status.

    The caller of this must have checked that the caller may ask.

    Raises:
        ApiError: 400, the object is not of that kind; 422, it says nothing to review.
    """
    if body.get("kind", kind) != kind:
        raise ApiError(400, f"expected a {kind}")
    spec = body.get("spec") or {}
    if not isinstance(spec, dict):
        raise ApiError(400, "spec must be an object")
    if kind == "SelfSubjectAccessReview":
        status = _access(kind, spec, caller.principal, caller.scope, access)
    elif kind in REVIEWS_OF_OTHERS:
        status = _access(kind, spec, _other(kind, spec), UNLIMITED, access)
    elif kind == "SelfSubjectRulesReview":
        status = _rules(caller, access)
    else:
        groups = [AUTHENTICATED, *caller.principal.groups]
        status = {"userInfo": {"username": caller.name, "groups": groups, "extra": {}}}
    return {
        "kind": kind,
        "apiVersion": body.get("apiVersion", "v1"),
        "metadata": {"creationTimestamp": None},
        "spec": spec,
        "status": status,
    }


def _other(kind: str, spec: Json) -> Principal:
    """Returns the user that a review is about, with the groups that it names.

    Whether there is such a user is not checked.
    """
    groups = spec.get("groups") or []
    names = tuple(name for name in groups if isinstance(name, str)) if isinstance(groups, list) else ()
    _check_lengths(kind, "spec", spec)
    name = _text(spec, "user")
    if not name and not names:
        raise invalid(kind, _GROUP, "spec.user", 'Invalid value: "": at least one of user or group must be specified')
    return Principal(kind=PrincipalKind.USER, name=name, groups=names)


def _access(kind: str, spec: Json, who: Principal, scope: Scope, access: Access) -> Json:
    attributes, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if isinstance(attributes, dict) and path is None:
        _check_lengths(kind, "spec.resourceAttributes", attributes)
        action = _resource_action(attributes)
    elif isinstance(path, dict) and attributes is None:
        action = Action(verb=_text(path, "verb"), path=_text(path, "path"))
    else:
        message = "Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise invalid(kind, _GROUP, "spec.resourceAttributes", message)
    found = access.possible(who, scope, action)
    limits = f" ({SOME_ONLY})" if found.allowed and found.limited else ""
    return {"allowed": found.allowed, "reason": f"{why(found)}{limits}"}


def _check_lengths(kind: str, where: str, part: Json) -> None:
    """Makes sure that no text is longer than any name: the globs of the policy are matched with them.

    Raises:
        ApiError: 422, one is.
    """
    for field, value in part.items():
        if isinstance(value, str) and len(value) > MAX_GLOB_CHARS:
            message = f"Too long: may not be more than {MAX_GLOB_CHARS} characters"
            raise invalid(kind, _GROUP, f"{where}.{field}"[:MAX_GLOB_CHARS], message)


def _resource_action(attributes: Json) -> Action:
    group, resource, name = (_text(attributes, field) for field in ("group", "resource", "name"))
    subresource = _text(attributes, "subresource")
    if not subresource and find_in_group(group, f"{resource}/{name}"):
        # `kubectl auth can-i create pods/exec` asks of a pod named exec; nobody who types it means that.
        subresource, name = name, ""
    return Action(
        verb=_text(attributes, "verb"),
        group=group,
        resource=f"{resource}/{subresource}" if subresource else resource,
        namespace=_text(attributes, "namespace"),
        name=name,
    )


def _rules(caller: Caller, access: Access) -> Json:
    rules: list[Json] = []
    incomplete = False
    offered = [(item.group, item.name, item.verbs) for item in RESOURCES]
    for group, name, verbs in (*offered, ("", "users", ("impersonate",)), ("", "groups", ("impersonate",))):
        found = access.possible(caller.principal, caller.scope, Action(verb=verbs[0], group=group, resource=name))
        if found.allowed:
            rules.append({"verbs": list(verbs), "apiGroups": [group], "resources": [name]})
            incomplete |= found.limited
    return {
        "resourceRules": rules,
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": list(PATHS)}],
        "incomplete": incomplete,
        **({"evaluationError": SOME_ONLY} if incomplete else {}),
    }


def _text(part: Json, field: str) -> str:
    value = part.get(field, "")
    return value if isinstance(value, str) else ""
