"""Answers questions about rights: `kubectl auth can-i`, `auth can-i --list`, `auth whoami`, and those about other
users.
"""

from __future__ import annotations

from cloud_server.frontends.fleet.interfaces import User
from cloud_server.frontends.fleet.resources import RESOURCES, find_in_group
from cloud_server.frontends.fleet.rights import AUTHENTICATED, PATHS, Action, decide
from tunnel.kubeapi.status import ApiError, Json, invalid

_GROUP = "authorization.k8s.io"

_OF_OTHERS = ("SubjectAccessReview", "LocalSubjectAccessReview")


def review(kind: str, body: Json, user: User) -> Json:
    """Answers a review object with the same object and its status.

    Raises:
        ApiError: 400, the object is not of that kind; 422, it says nothing to review.
    """
    if body.get("kind", kind) != kind:
        raise ApiError(400, f"expected a {kind}")
    spec = body.get("spec") or {}
    if not isinstance(spec, dict):
        raise ApiError(400, "spec must be an object")
    if kind == "SelfSubjectAccessReview":
        status = _access(kind, spec, user)
    elif kind in _OF_OTHERS:
        status = _access(kind, spec, _other(kind, spec))
    elif kind == "SelfSubjectRulesReview":
        status = _rules()
    else:
        status = {"userInfo": {"username": user.name, "groups": list(user.groups), "extra": {}}}
    return {
        "kind": kind,
        "apiVersion": body.get("apiVersion", "v1"),
        "metadata": {"creationTimestamp": None},
        "spec": spec,
        "status": status,
    }


def _other(kind: str, spec: Json) -> User:
    """Returns the user that a review is about. Whoever has a credential is an administrator, so any name may be one."""
    groups = spec.get("groups") or []
    names = tuple(name for name in groups if isinstance(name, str)) if isinstance(groups, list) else ()
    name = _text(spec, "user")
    if not name and not names:
        raise invalid(kind, _GROUP, "spec.user", 'Invalid value: "": at least one of user or group must be specified')
    return User(name if name or AUTHENTICATED not in names else AUTHENTICATED, names)


def _access(kind: str, spec: Json, user: User) -> Json:
    attributes, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if isinstance(attributes, dict) and path is None:
        action = _resource_action(attributes)
    elif isinstance(path, dict) and attributes is None:
        action = Action(verb=_text(path, "verb"), path=_text(path, "path"))
    else:
        message = "Invalid value: exactly one of nonResourceAttributes or resourceAttributes must be specified"
        raise invalid(kind, _GROUP, "spec.resourceAttributes", message)
    decision = decide(user, action)
    return {"allowed": decision.allowed, "reason": decision.reason}


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


def _rules() -> Json:
    rules = [{"verbs": list(item.verbs), "apiGroups": [item.group], "resources": [item.name]} for item in RESOURCES]
    return {
        "resourceRules": rules,
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": list(PATHS)}],
        "incomplete": False,
    }


def _text(part: Json, field: str) -> str:
    value = part.get(field, "")
    return value if isinstance(value, str) else ""
