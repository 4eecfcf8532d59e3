"""What a limited credential is good for."""

from __future__ import annotations

import pytest

from cloud_server.rights.ask import Ask, Verb
from cloud_server.rights.rules import Asked
from cloud_server.rights.scopes import scope_refusal
from cloud_server.trust.caller import UNLIMITED, Scope
from tunnel.core.wire.principal import Principal, PrincipalKind
from tunnel.core.wire.target import ServiceTarget, Target, TcpTarget

ANN = Principal(kind=PrincipalKind.USER, name="ann")

SITE = Scope(
    frontends=frozenset({"connect"}),
    agents=frozenset({"site-a"}),
    verbs=frozenset({"connect"}),
    targets=frozenset({"127.0.0.1:6443"}),
)
API = TcpTarget("127.0.0.1", 6443)


def covers(
    scope: Scope,
    frontend: str,
    verb: str,
    agent: str = "",
    labels: dict[str, str] | None = None,
    target: Target | None = None,
) -> bool:
    ask = Ask(
        principal=ANN, scope=scope, frontend=frontend, verb=Verb(verb), agent=agent, labels=labels or {}, target=target
    )
    return not scope_refusal(scope, Asked(ask))


def test_the_credential_of_a_site_is_good_for_its_api_server_and_nothing_else() -> None:
    assert covers(SITE, "connect", "connect", "site-a", {}, API)
    others: list[tuple[str, str, str, Target | None]] = [
        ("fleet", "connect", "site-a", API),
        ("socks", "connect", "site-a", API),
        ("connect", "exec", "site-a", API),
        ("connect", "connect", "site-b", API),
        ("connect", "connect", "", API),
        ("connect", "connect", "site-a", TcpTarget("127.0.0.1", 6444)),
        ("connect", "connect", "site-a", TcpTarget("127.0.0.11", 6443)),
        ("connect", "connect", "site-a", ServiceTarget("127.0.0.1:6443x")),
        ("connect", "connect", "site-a", None),
    ]
    for frontend, verb, agent, target in others:
        assert not covers(SITE, frontend, verb, agent, {}, target), (frontend, verb, agent, target)


@pytest.mark.parametrize(
    ("agents", "agent", "labels", "covered"),
    [
        ({"lyon-*"}, "lyon-7", {}, True),
        ({"lyon-*"}, "paris-7", {}, False),
        ({"site=lyon"}, "box-7", {"site": "lyon"}, True),
        ({"site=lyon"}, "box-7", {"site": "paris"}, False),
        ({"site=lyon"}, "box-7", {}, False),
        ({"site=lyon"}, "site=lyon", {}, False),
        ({"site=lyon", "box-9"}, "box-9", {}, True),
        (set(), "box-7", {}, False),
        ({"*"}, "", {}, False),
    ],
)
def test_agents_by_pattern_and_by_the_operators_labels(
    agents: set[str], agent: str, labels: dict[str, str], covered: bool
) -> None:
    assert covers(Scope(agents=frozenset(agents)), "fleet", "get", agent, labels) is covered


def test_without_a_limit_everything_is_covered_and_with_an_empty_one_nothing() -> None:
    assert covers(UNLIMITED, "fleet", "administer")
    assert covers(UNLIMITED, "connect", "connect", "box-7", {}, API)
    for empty in ("frontends", "agents", "verbs", "targets"):
        assert not covers(Scope(**{empty: frozenset()}), "connect", "connect", "box-7", {}, API)
