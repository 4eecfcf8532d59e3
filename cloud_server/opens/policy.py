"""Asks the rights for the door: whether an open may be made over one of its routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address
from typing import Protocol

from cloud_server.opens.request import OpenRequest
from cloud_server.rights.ask import Ask, Verb
from cloud_server.rights.engine import Decision, Rights
from cloud_server.routing.route import Route
from cloud_server.trust.caller import Scope
from tunnel.aio.sockets.address import split_address
from tunnel.core.wire.exec_terms import ExecTerms
from tunnel.core.wire.principal import Principal
from tunnel.core.wire.target import ServiceTarget, Target, TcpTarget
from tunnel.core.wire.target_rule import LOOPBACK_NAME

LabelsOf = Callable[[str], Mapping[str, str]]
"""A function that returns the labels of an agent, as the operator has set them."""
_NO_LABELS: Mapping[str, str] = {}


def no_labels(_agent: str) -> Mapping[str, str]:
    """Returns no labels, for an agent of a server on which nobody sets any."""
    return _NO_LABELS


class Policy(Protocol):
    """The policy that decides about each open. It is called in the event loop, and may neither block nor raise."""

    def decide(self, request: OpenRequest, route: Route) -> Decision:
        """Returns whether a request may take a route."""
        ...

    def forbids(self, request: OpenRequest, route: Route, resolved: str) -> Decision | None:
        """Returns what forbids the address that a name or a service turned out to be at the agent; None when nothing
        does. `resolved` is the agent's word: a name whose address it does not tell is forbidden by any deny that may
        be about it; a service without one has none.
        """
        ...

    def weighs_addresses(self, request: OpenRequest) -> bool:
        """Returns whether a deny is about addresses, so that what a name or a service is must be known before anything
        is sent to it.
        """
        ...


class DoorPolicy:
    """The policy of the door. It decides by rights that are replaced as a whole."""

    def __init__(self, rights: Rights, labels_of: LabelsOf = no_labels) -> None:
        self.rights = rights
        """The rights of the moment. They decide about what is opened from now on; see `Policed.objection` for what
        runs."""
        self.labels_of = labels_of

    def decide(self, request: OpenRequest, route: Route) -> Decision:
        """Returns whether a request may take a route, and which rule decided.

        Of several ports the first that is refused decides.
        """
        if request.caller.by is not None and not (acting := self._decide_acting(request)).allowed:
            return acting
        if request.verb is Verb.PORT_FORWARD and request.ports:
            decisions = [
                self.rights.decide(self._ask(request, route.agent, TcpTarget(LOOPBACK_NAME, port)))
                for port in request.ports
            ]
            return next((decision for decision in decisions if not decision.allowed), decisions[0])
        target = route.target if request.verb is Verb.CONNECT else None
        return self.rights.decide(self._ask(request, route.agent, target))

    def forbids(self, request: OpenRequest, route: Route, resolved: str) -> Decision | None:
        """Returns what forbids the address that a name resolved to at the agent; None when nothing does."""
        if request.verb is not Verb.CONNECT or not is_resolved_there(route.target):
            return None
        target = _address(resolved)
        if target is None and isinstance(route.target, ServiceTarget):
            return None
        # Without a target, every deny of some targets counts as one that may be meant.
        return self.rights.forbids(self._ask(request, route.agent, target))

    def weighs_addresses(self, request: OpenRequest) -> bool:
        """Returns whether a deny is about addresses, so that a name's must be known before anything is sent to it."""
        return request.verb is Verb.CONNECT and self.rights.denies_targets(request.caller.principal)

    def acting(self, by: Principal, scope: Scope, frontend: str, name: str, groups: Iterable[str]) -> Decision:
        """Returns whether somebody may act as a user with these groups; the first refusal is told.

        An empty name stands for no user.
        """
        whom = [*([f"user:{name}"] if name else []), *(f"group:{group}" for group in groups)]
        decision = Decision(True, "")
        for one in whom:
            ask = Ask(principal=by, scope=scope, frontend=frontend, verb=Verb.IMPERSONATE, whom=one)
            if not (decision := self.rights.decide(ask)).allowed:
                break
        return decision

    # Internal

    def _decide_acting(self, request: OpenRequest) -> Decision:
        caller = request.caller
        assert caller.by is not None
        return self.acting(caller.by, caller.scope, request.frontend, caller.name, caller.principal.groups)

    def _ask(self, request: OpenRequest, agent: str, target: Target | None) -> Ask:
        return Ask(
            principal=request.caller.principal, scope=request.caller.scope, frontend=request.frontend,
            verb=request.verb, agent=agent, labels=self.labels_of(agent), target=target, unit=request.unit,
            command=request.command,
        )  # fmt: skip


def demands_more(decision: Decision, terms: ExecTerms) -> bool:
    """Returns whether a rule demands of a command now what was not demanded of the box when it began."""
    if decision.record and not terms.record:
        return True
    return decision.accounts is not None and (terms.accounts is None or not terms.accounts <= decision.accounts)


def is_resolved_there(target: Target) -> bool:
    """Returns whether only the agent can tell which address a target is: of a name, and of a service."""
    if isinstance(target, ServiceTarget):
        return True
    if not isinstance(target, TcpTarget):
        return False
    try:
        ip_address(target.host)
    except ValueError:
        return True
    return False


# Internal


def _address(resolved: str) -> TcpTarget | None:
    """The address that was dialled; None where the agent's word is none."""
    try:
        host, port = split_address(resolved)
        ip_address(host)
    except ValueError:
        return None
    return TcpTarget(host, port)
