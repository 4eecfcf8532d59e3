"""Describes what a request, or a question about one, wants to do: in Kubernetes' words, and as a verb of the rights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cloud_server.frontends.fleet.resources import Resource
from cloud_server.frontends.fleet.routes import ResourceRequest
from cloud_server.rights.ask import Verb

SUBRESOURCES: Final = {
    "log": Verb.LOGS, "exec": Verb.EXEC, "attach": Verb.EXEC, "portforward": Verb.PORT_FORWARD,
    "recordings": Verb.ADMINISTER,
}  # fmt: skip
"""The subresources of pods, each with the verb of the rights that it takes. A recording shows all that others wrote and
read on a terminal."""
REVIEWS_OF_OTHERS: Final = ("SubjectAccessReview", "LocalSubjectAccessReview")
PATHS: Final = (
    "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi/v2", "/openapi/v3", "/openapi/v3/*",
    "/readyz", "/version",
)  # fmt: skip
"""The paths beside resources that everybody who has a credential may read: they say nothing of any box."""
PATH_VERBS: Final = ("get", "head")


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What a user wants to do, in Kubernetes' words."""

    verb: str
    group: str = ""
    resource: str = ""
    """The resource with its subresource, such as `pods/exec`; empty for a path that is no resource."""
    path: str = ""
    """The path that is no resource; empty for a resource."""
    namespace: str = ""
    name: str = ""
    """The name of the object; empty when the action names none, as a list."""


def action_of(about: ResourceRequest) -> Action:
    """Returns what a request wants to do."""
    resource = about.resource
    return Action(
        verb=about.verb, group=resource.group, resource=resource.name, namespace=about.namespace, name=about.name
    )


def verb_of(resource: Resource) -> Verb | None:
    """Returns the verb of the rights that a resource takes; None where everybody may, because they ask about
    themselves.
    """
    if resource.subresource:
        return SUBRESOURCES[resource.subresource]
    if resource.kind in REVIEWS_OF_OTHERS:
        return Verb.ADMINISTER
    return Verb.GET if "get" in resource.verbs else None


def not_offered(verb: str, resource: Resource) -> str:
    """Returns the sentence that tells a person why a verb is not offered."""
    offered = ", ".join(resource.verbs)
    return f"the fleet API does not offer {verb} on {resource.name}, only {offered}; {resource.origin}"


def is_known_path(path: str) -> bool:
    """Returns whether there is something to read at a path that is no resource."""
    return any(path == known or (known.endswith("*") and path.startswith(known.removesuffix("*"))) for known in PATHS)
