"""What a limited credential is good for at the fleet API: asked for each request, beside what its user may do."""

from __future__ import annotations

from cloud_server.frontends.fleet.causes import cause
from cloud_server.frontends.fleet.kubelet import FRONTEND
from cloud_server.frontends.fleet.routes import ResourceRequest
from cloud_server.trust.caller import UNLIMITED, Caller
from tunnel.aio.sockets.http1 import Request
from tunnel.core.wire.faults import OUT_OF_SCOPE
from tunnel.kubeapi.status import ApiError, Json, about

GET, LOGS, EXEC, PORT_FORWARD, OBSERVE, ADMINISTER = "get", "logs", "exec", "port-forward", "observe", "administer"
SUBRESOURCES = {"log": LOGS, "exec": EXEC, "attach": EXEC, "portforward": PORT_FORWARD}
"""Of pods, each with the verb of scopes that it is."""


def verb_of(request: ResourceRequest) -> str:
    """What a request of the Kubernetes API is, in the words of scopes."""
    return SUBRESOURCES.get(request.resource.subresource, GET)


def check_frontend(caller: Caller) -> None:
    """Make sure that a credential is good for the fleet API at all.

    Raises:
        ApiError: 403, it was made for something else.
    """
    frontends = caller.scope.frontends
    if frontends is not None and FRONTEND not in frontends:
        only = ", ".join(sorted(frontends)) or "nothing"
        raise _refused(caller, f"it is good for {only} only, not for the fleet API")


def check_scope(caller: Caller, request: ResourceRequest) -> None:
    """Make sure that a credential is good for a request of the Kubernetes API. Of what leads to a box, the door asks
    anew, with the agent and the target.

    Raises:
        ApiError: 403, it is not.
    """
    scope = caller.scope
    if scope is UNLIMITED:
        return
    verb = verb_of(request)
    if request.resource.subresource in SUBRESOURCES:
        covered = scope.reaches(FRONTEND, verb)
    else:
        agent = request.name if request.resource.name == "nodes" else ""
        covered = scope.covers(FRONTEND, verb, agent)
    if not covered:
        details = about(request.resource.group, request.resource.name, request.name)
        raise _refused(caller, f"it is not good for {verb} of {request.resource.name}", details)


def check_administration(caller: Caller, request: Request) -> None:
    """Make sure that a credential is good for a request to the administration API.

    Raises:
        ApiError: 403, it is not.
    """
    verb = OBSERVE if request.method in ("GET", "HEAD") else ADMINISTER
    if not caller.scope.covers(FRONTEND, verb):
        raise _refused(caller, f"it is not good to {verb} the server")


# Internal


def _refused(caller: Caller, why: str, details: Json | None = None) -> ApiError:
    text = f"the credential of {caller.name} was not made for this: {why}"
    return ApiError(403, text, details=details or {}, cause=cause(OUT_OF_SCOPE))
