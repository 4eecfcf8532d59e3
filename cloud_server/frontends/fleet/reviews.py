"""What a user may ask about itself: `kubectl auth can-i`, `auth can-i --list` and `auth whoami`."""

from __future__ import annotations

from cloud_server.frontends.fleet.access import Action, decide
from cloud_server.frontends.fleet.interfaces import User
from cloud_server.frontends.fleet.resources import RESOURCES, find_in_group
from cloud_server.frontends.fleet.status import ApiError, Json


def review(kind: str, body: Json, user: User) -> Json:
    """Answer a review object with the same object and its status.

    Raises:
        ApiError: 400, the object is not of that kind or says nothing to review.
    """
    if body.get("kind", kind) != kind:
        raise ApiError(400, f"expected a {kind}")
    spec = body.get("spec") or {}
    if not isinstance(spec, dict):
        raise ApiError(400, "spec must be an object")
    if kind == "SelfSubjectAccessReview":
        status = _access(spec, user)
    elif kind == "SelfSubjectRulesReview":
        status = _rules()
    else:
        status = {"userInfo": {"username": user.name, "groups": list(user.groups)}}
    return {
        "kind": kind,
        "apiVersion": body.get("apiVersion", "v1"),
        "metadata": {"creationTimestamp": None},
        "spec": spec,
        "status": status,
    }


def _access(spec: Json, user: User) -> Json:
    attributes, path = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if isinstance(attributes, dict):
        action = _resource_action(attributes)
    elif isinstance(path, dict):
        action = Action(verb=_text(path, "verb"))
    else:
        raise ApiError(400, "spec.resourceAttributes or spec.nonResourceAttributes must be given")
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
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/api", "/api/*", "/apis", "/apis/*", "/version"]}],
        "incomplete": False,
    }


def _text(part: Json, field: str) -> str:
    value = part.get(field, "")
    return value if isinstance(value, str) else ""
