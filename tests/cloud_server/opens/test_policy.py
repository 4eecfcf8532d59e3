"""What the door's policy says of a port-forward, of whoever acts as another, and of what runs under other rules."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloud_server.opens.live import LiveOpen, LiveOpens
from cloud_server.opens.policed import Policed
from cloud_server.opens.policy import DoorPolicy
from cloud_server.opens.request import OpenRequest
from cloud_server.rights.ask import Verb
from cloud_server.routing.route import Route
from tests.support.doors import ANN, asking
from tests.support.policies import rights_of
from tunnel.aio.sessions.stream import Stream
from tunnel.core.wire.exec_terms import ANY_TERMS, ExecTerms
from tunnel.core.wire.names import KUBELET
from tunnel.core.wire.principal import Principal, PrincipalKind
from tunnel.core.wire.target import ServiceTarget

RULES = """
[[role]]
name = "ann"
[[role.allow]]
verbs = ["port-forward"]
targets = ["localhost:80", "127.0.0.1:443"]
[[role.allow]]
verbs = ["exec"]
accounts = ["app", "web"]
[[binding]]
role = "ann"
users = ["ann"]

[[role]]
name = "acts"
[[role.allow]]
verbs = ["impersonate"]
whom = ["user:ann"]
[[binding]]
role = "acts"
users = ["eve"]
"""
ROUTE = Route("box-7", ServiceTarget(KUBELET))
EXEC = asking(ROUTE, frontend="fleet", verb=Verb.EXEC, unit="host")


@pytest.mark.parametrize(("ports", "allowed"), [((80,), True), ((443, 80), True), ((80, 22), False), ((), False)])
def test_each_port_is_asked_for(ports: tuple[int, ...], allowed: bool) -> None:
    request = asking(ROUTE, frontend="fleet", verb=Verb.PORT_FORWARD, ports=ports)
    assert DoorPolicy(rights_of(RULES)).decide(request, ROUTE).allowed is allowed


class Unopened:
    """The rest of the chain, which is not come to."""

    async def open(self, live: LiveOpen) -> Stream:
        raise AssertionError(live)


def acted_as_ann(by: str) -> OpenRequest:
    real = Principal(kind=PrincipalKind.USER, name=by)
    return replace(EXEC, caller=replace(ANN, by=real))


def test_whoever_acts_as_another_must_still_be_allowed_to() -> None:
    policy = DoorPolicy(rights_of(RULES))
    assert policy.decide(acted_as_ann("eve"), ROUTE).allowed
    refused = policy.decide(acted_as_ann("mallory"), ROUTE)
    assert (refused.allowed, "impersonate" in refused.reason) == (False, True)
    grouped = replace(ANN.principal, groups=("admins",))
    request = replace(EXEC, caller=replace(ANN, principal=grouped, by=Principal(kind=PrincipalKind.USER, name="eve")))
    assert not policy.decide(request, ROUTE).allowed, "each group is asked for, too"


async def test_a_command_goes_on_while_no_more_is_demanded_of_it() -> None:
    before = RULES.replace('accounts = ["app", "web"]', "")
    cases = (
        (RULES, ExecTerms(frozenset({"app"})), True),
        (RULES, ExecTerms(frozenset({"app", "root"})), False),
        (RULES, ANY_TERMS, False),
        (before, ANY_TERMS, True),
        (before.replace('verbs = ["exec"]', 'verbs = ["exec"]\nrecord = true'), ANY_TERMS, False),
    )
    live = LiveOpens().begin(EXEC)
    live.agent, live.target = ROUTE
    for text, terms, goes_on in cases:
        live.terms = terms
        policed = Policed(DoorPolicy(POLICIES[text]), Unopened())
        assert (policed.objection(live, live.request.caller) is None) is goes_on, terms


_BEFORE = RULES.replace('accounts = ["app", "web"]', "")
POLICIES = {
    text: rights_of(text)
    for text in (RULES, _BEFORE, _BEFORE.replace('verbs = ["exec"]', 'verbs = ["exec"]\nrecord = true'))
}
