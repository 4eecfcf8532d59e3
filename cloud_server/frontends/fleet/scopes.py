"""What a limited credential is good for at the fleet API: asked for each request, beside what its user may do."""

from __future__ import annotations

from dataclasses import replace

from cloud_server.frontends.fleet.causes import cause
from cloud_server.frontends.fleet.kubelet import FRONTEND
from cloud_server.frontends.fleet.routes import ResourceRequest
from cloud_server.rights.ask import Ask, Verb
from cloud_server.rights.rules import Asked
from cloud_server.rights.scopes import scope_refusal
from cloud_server.trust.caller import UNLIMITED, Caller, Scope
from tunnel.aio.sockets.http1 import Request
from tunnel.core.wire.faults import OUT_OF_SCOPE
from tunnel.kubeapi.status import ApiError, Json, about

SUBRESOURCES = {
    "log": Verb.LOGS, "exec": Verb.EXEC, "attach": Verb.EXEC, "portforward": Verb.PORT_FORWARD,
    "recordings": Verb.ADMINISTER,
}  # fmt: skip
"""Of pods, each with the verb that it is. A recording shows all that others wrote and read on a terminal."""


def verb_of(request: ResourceRequest) -> Verb:
    """Returns the verb of rights that a request of the Kubernetes API is."""
    return SUBRESOURCES.get(request.resource.subresource, Verb.GET)


def check_frontend(caller: Caller) -> None:
    """Makes sure that a credential is good for the fleet API at all.

    Raises:
        ApiError: 403, it was made for something else.
    """
    frontends = caller.scope.frontends
    if frontends is not None and FRONTEND not in frontends:
        only = ", ".join(sorted(frontends)) or "nothing"
        raise _refused(caller, f"it is good for {only} only, not for the fleet API")


def check_scope(caller: Caller, request: ResourceRequest) -> None:
    """Makes sure that a credential is good for a request of the Kubernetes API. Of what leads to a box, the door asks
    anew, with the agent and the target.

    Raises:
        ApiError: 403, it is not.
    """
    scope = caller.scope
    if scope is UNLIMITED:
        return
    agent = request.name if request.resource.name == "nodes" else ""
    if request.resource.subresource in SUBRESOURCES:
        scope = replace(scope, agents=None, targets=None)
    if refusal := _refusal(caller, scope, verb_of(request), agent):
        raise _refused(caller, refusal, about(request.resource.group, request.resource.name, request.name))


def check_administration(caller: Caller, request: Request) -> None:
    """Makes sure that a credential is good for a request to the administration API.

    Raises:
        ApiError: 403, it is not.
    """
    verb = Verb.OBSERVE if request.method in ("GET", "HEAD") else Verb.ADMINISTER
    if refusal := _refusal(caller, caller.scope, verb):
        raise _refused(caller, refusal)


# Internal


def _refusal(caller: Caller, scope: Scope, verb: Verb, agent: str = "") -> str:
    return scope_refusal(
        scope, Asked(Ask(principal=caller.principal, scope=scope, frontend=FRONTEND, verb=verb, agent=agent))
    )


def _refused(caller: Caller, why: str, details: Json | None = None) -> ApiError:
    text = f"the credential of {caller.name} was not made for this: {why}"
    return ApiError(403, text, details=details or {}, cause=cause(OUT_OF_SCOPE))
