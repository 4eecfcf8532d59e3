"""Whether a verb may be used at all, as `kubectl auth can-i` asks, and a port-forward whose port is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cloud_server.rights.ask import Verb
from cloud_server.rights.engine import DEFAULT_DENY
from cloud_server.rights.possible import possible
from cloud_server.rights.scopes import SCOPE_RULE
from cloud_server.trust.caller import Scope
from tests.cloud_server.rights.asks import fleet, user
from tests.support.policies import rights_of
from tunnel.core.wire.principal import Principal, PrincipalKind
from tunnel.core.wire.target import TcpTarget

RULES = """
[[role]]
name = "r"
[[role.allow]]
agents = ["site-a-*"]
verbs = ["get"]
[[role.allow]]
name = "nginx"
agents = ["site-a-*"]
verbs = ["logs"]
units = ["nginx*"]
[[role.allow]]
verbs = ["observe"]
[[role.allow]]
verbs = ["port-forward"]
agents = ["open-1", "shut-1"]
[[role.allow]]
name = "web"
verbs = ["port-forward"]
targets = ["localhost:80"]
agents = ["web-1"]
[[role.deny]]
name = "no-ssh"
verbs = ["port-forward"]
targets = ["localhost:22"]
agents = ["shut-1"]
[[role.deny]]
name = "safe"
agents = ["site-a-safe"]
[[binding]]
role = "r"
users = ["ann"]
"""
RIGHTS = rights_of(RULES)
ADMIN = rights_of("[[binding]]\nrole = 'admin'\nusers = ['ann']\n")


@pytest.mark.parametrize(
    ("verb", "agent", "allowed", "rule", "limited"),
    [
        (Verb.GET, "", True, "r.allow[0]", True),
        (Verb.GET, "site-a-1", True, "r.allow[0]", False),
        (Verb.GET, "site-b-1", False, DEFAULT_DENY, False),
        (Verb.GET, "site-a-safe", False, "safe", False),
        (Verb.LOGS, "", True, "nginx", True),
        (Verb.LOGS, "site-a-1", True, "nginx", True),
        (Verb.EXEC, "", False, DEFAULT_DENY, False),
        (Verb.OBSERVE, "", True, "r.allow[2]", True),
        (Verb.PORT_FORWARD, "shut-1", True, "r.allow[3]", True),
        (Verb.PORT_FORWARD, "open-1", True, "r.allow[3]", False),
    ],
)
def test_what_may_be_done_somewhere(verb: Verb, agent: str, allowed: bool, rule: str, limited: bool) -> None:
    found = possible(RIGHTS, fleet(verb, agent=agent))
    assert (found.allowed, found.rule, found.limited) == (allowed, rule, limited)


def test_an_administrator_is_not_limited_and_a_scope_limits() -> None:
    ask = fleet(Verb.EXEC, agent="")
    assert possible(ADMIN, ask) == (True, "builtin admin", "", False)
    site = replace(ask, scope=Scope(agents=frozenset({"site-a-*"})))
    assert possible(ADMIN, site)[0::3] == (True, True)
    assert not possible(ADMIN, replace(site, agent="site-b-1")).allowed
    reader = replace(ask, scope=Scope(verbs=frozenset({"get"})))
    assert possible(ADMIN, reader).rule == SCOPE_RULE
    assert not possible(ADMIN, replace(ask, principal=user("eve"))).allowed


def test_the_builtin_rules_are_asked_too() -> None:
    server = Principal(kind=PrincipalKind.SERVER, name="fleet")
    assert possible(ADMIN, fleet(Verb.GET, principal=server)).rule == "system:server"


def test_a_port_that_is_not_known_may_be_any() -> None:
    """A deny of one port would else be got round by not naming the port."""

    def rule(agent: str, port: int = 0) -> str:
        target = TcpTarget("localhost", port) if port else None
        return RIGHTS.decide(fleet(Verb.PORT_FORWARD, agent=agent, target=target)).rule

    assert rule("open-1") == "r.allow[3]"
    assert rule("shut-1") == "no-ssh"
    assert rule("shut-1", 22) == "no-ssh"
    assert rule("shut-1", 80) == "r.allow[3]"
    assert rule("web-1") == DEFAULT_DENY
    assert (rule("web-1", 80), rule("web-1", 81)) == ("web", DEFAULT_DENY)
