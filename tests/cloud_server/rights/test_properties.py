"""What must hold of every policy, however it is written."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud_server.rights.ask import Ask, Verb
from cloud_server.rights.engine import Rights
from cloud_server.rights.policy_file import BindingConfig, Name, RoleConfig, RuleConfig, TargetText
from cloud_server.trust.caller import UNLIMITED, Scope
from tests.cloud_server.rights.asks import connect, user
from tests.support.policies import rights_of
from tunnel.core.wire.principal import Principal, PrincipalKind
from tunnel.core.wire.target import ServiceTarget, TcpTarget

AGENTS = ("box-1", "box-2", "site-1", "site-10")
GLOBS = ("box-1", "box-*", "*-1", "site-?", "*", "s*0")
TARGETS = ("10.0.0.0/8:443", "10.1.0.0/16:*", "*.example.com:443", "db.example.com:443", "*:80", "service:ssh", "*",
           "169.254.169.254:80")  # fmt: skip
HOSTS = ("10.1.2.3", "10.2.2.3", "db.example.com", "192.0.2.1", "169.254.169.254", "localhost")
UNITS = ("host", "nginx.service")
FRONTENDS = ("connect", "fleet", "socks")
LABELS = st.sampled_from([{}, {"site": "a"}, {"site": "b"}, {"site": "a", "tier": "b"}])


def some(of: Sequence[str]) -> st.SearchStrategy[Any]:
    """None most of the time, since a rule with many limits fits nothing; or one or two of them."""
    return st.sampled_from([*[None] * 20, *(list(chosen) for count in (1, 2) for chosen in combinations(of, count))])


def rules(*, allows: bool) -> st.SearchStrategy[RuleConfig]:
    accounts = some(("root", "app")) if allows else st.none()
    return st.builds(
        RuleConfig, frontends=some(FRONTENDS), agents=some(GLOBS), labels=st.none() | LABELS.filter(bool),
        targets=some(TARGETS).map(lambda texts: texts and [TargetText.from_config(text) for text in texts]),
        verbs=some([str(verb) for verb in Verb]), units=some(("host", "nginx*")), accounts=accounts,
        whom=some(("user:b*", "group:*")),
    )  # fmt: skip


ROLE_NAMES = ("r1", "r2")


@st.composite
def policies(draw: st.DrawFn) -> tuple[list[RoleConfig], list[BindingConfig]]:
    number = 0
    roles = []
    for name in ROLE_NAMES:
        kinds: dict[str, list[RuleConfig]] = {}
        for kind in ("allow", "deny"):
            drawn = draw(st.lists(rules(allows=kind == "allow"), max_size=2))
            named = []
            for rule in drawn:  # with a name each, what decided can be compared whatever the order
                number += 1
                named.append(RuleConfig(**{**vars(rule), "name": f"rule-{number}"}))
            kinds[kind] = named
        roles.append(RoleConfig(name=name, **kinds))  # type: ignore[arg-type]
    one = st.builds(
        BindingConfig, role=st.sampled_from((*ROLE_NAMES, "viewer", "admin")),
        users=st.lists(st.sampled_from(["ann", "bob"]), max_size=2),
        groups=st.lists(st.sampled_from(["g", "h"]), max_size=2),
    )  # fmt: skip
    return roles, draw(st.lists(one, max_size=5))


SCOPES = st.builds(
    Scope, frontends=some(FRONTENDS).map(lambda v: v and frozenset(v)),
    agents=some((*GLOBS, "site=a")).map(lambda v: v and frozenset(v)),
    verbs=some([str(verb) for verb in Verb]).map(lambda v: v and frozenset(v)),
    targets=some(TARGETS).map(lambda v: v and frozenset(v)),
)  # fmt: skip


@st.composite
def asks(draw: st.DrawFn, scope: Scope = UNLIMITED) -> Ask:
    verb = draw(st.sampled_from(list(Verb)))
    target = st.builds(TcpTarget, st.sampled_from(HOSTS), st.sampled_from([80, 443])) | st.just(ServiceTarget("ssh"))
    groups = tuple(draw(some(("g", "h", "system:agents"))) or ())
    kind = draw(st.sampled_from([PrincipalKind.USER, PrincipalKind.USER, PrincipalKind.LOCAL_PROCESS]))
    return Ask(
        principal=Principal(kind=kind, name=draw(st.sampled_from(["ann", "bob", "eve"])), groups=groups),
        frontend=draw(st.sampled_from(FRONTENDS)), verb=verb, agent=draw(st.sampled_from((*AGENTS, ""))),
        labels=draw(LABELS), target=draw(target) if verb in (Verb.CONNECT, Verb.PORT_FORWARD) else None,
        unit=draw(st.sampled_from((*UNITS, ""))), whom=draw(st.sampled_from(["user:bob", "group:g", ""])), scope=scope,
    )  # fmt: skip


few = settings(max_examples=30)
"""Each has some asks; drawing a policy is what takes the time."""
many_asks = st.lists(asks(), min_size=4, max_size=8)


@few
@given(policies(), rules(allows=False), st.sampled_from(ROLE_NAMES), many_asks)
def test_another_deny_never_allows_more(policy: Any, deny: RuleConfig, role: str, asked: list[Ask]) -> None:
    """Of people who have the role, and another by which they may do all; the last deny is about everything."""
    roles, bindings = policy
    everybody = [Name(name) for name in ("ann", "bob", "eve")]
    bindings = [*bindings, *(BindingConfig(role=Name(name), users=everybody) for name in (role, "admin"))]
    rights = [Rights(roles, bindings)]
    for more in ([deny], [deny, RuleConfig(name=Name("all"))]):
        stricter = [
            RoleConfig(name=one.name, allow=one.allow, deny=[*one.deny, *more] if one.name == role else one.deny)
            for one in roles
        ]
        rights.append(Rights(stricter, bindings))
    for ask in asked:
        allowed = [each.decide(ask).allowed for each in rights]
        assert allowed == sorted(allowed, reverse=True)
        assert not allowed[-1] or ask.principal.kind is not PrincipalKind.USER


@few
@given(policies(), st.randoms(use_true_random=False), many_asks)
def test_order_means_nothing(policy: Any, chance: random.Random, asked: list[Ask]) -> None:
    roles, bindings = policy

    def shuffled(items: list[Any]) -> list[Any]:
        return chance.sample(items, len(items))

    other = [RoleConfig(name=one.name, allow=shuffled(one.allow), deny=shuffled(one.deny)) for one in shuffled(roles)]
    split = [
        BindingConfig(role=one.role, users=users, groups=groups)
        for one in shuffled(bindings)
        for users, groups in (([], shuffled(one.groups)), (shuffled(one.users), []))
    ]
    before, after = Rights(roles, bindings), Rights(other, split)
    for ask in asked:
        assert before.decide(ask) == after.decide(ask)


@few
@given(policies(), SCOPES, st.data())
def test_a_scope_only_narrows(policy: Any, scope: Scope, data: st.DataObject) -> None:
    rights = Rights(*policy)
    for _ in range(5):
        narrowed = data.draw(asks(scope))
        full = Ask(**{name: getattr(narrowed, name) for name in Ask.__slots__ if name != "scope"})
        assert rights.decide(full).allowed or not rights.decide(narrowed).allowed


@few
@given(policies(), many_asks)
def test_without_a_binding_a_user_may_nothing(policy: Any, asked: list[Ask]) -> None:
    roles, _ = policy
    rights = Rights(roles, [])
    for ask in asked:
        if ask.principal.kind is PrincipalKind.USER:
            assert not rights.decide(ask).allowed


@few
@given(policies(), asks())
def test_lists_show_what_may_be_seen(policy: Any, ask: Ask) -> None:
    rights = Rights(*policy)
    shown = rights.agents_visible(ask.principal, ask.scope, ask.frontend)
    for agent in AGENTS:
        seen = Ask(principal=ask.principal, frontend=ask.frontend, verb=Verb.GET, agent=agent, labels=ask.labels)
        assert (shown is None or shown(agent, ask.labels)) == rights.decide(seen).allowed


METADATA = ("169.254.169.254", "169.254.0.1", "169.254.170.2", "100.100.100.200", "168.63.129.16")
WIDE = "[[role]]\nname = 'r'\n[[role.allow]]\ntargets = [{targets}]\n[[binding]]\nrole = 'r'\nusers = ['ann']\n"
WIDEST = rights_of(
    WIDE.format(targets="'*', '0.0.0.0/0:*', '[::/0]:*', '*:80', '169.254.0.0/16:*'")
    + "[[binding]]\nrole = 'admin'\nusers = ['ann']\n"
)


NAMED = rights_of(WIDE.format(targets="'169.254.169.254:80'"))


@st.composite
def spellings(draw: st.DrawFn) -> str:
    """A metadata address, as something that takes addresses may be told it."""
    octets = [int(part) for part in draw(st.sampled_from(METADATA)).split(".")]
    number = int.from_bytes(bytes(octets))
    form = draw(st.sampled_from(["aton", "mapped", "nat64", "local nat64", "6to4"]))
    high, low = number >> 16, number & 0xFFFF
    if form == "mapped":
        return draw(st.sampled_from([f"::ffff:{high:x}:{low:x}", f"::FFFF:{'.'.join(map(str, octets))}"]))
    if form == "nat64":
        return draw(st.sampled_from([f"64:ff9b::{high:x}:{low:x}", f"0064:ff9b::{'.'.join(map(str, octets))}"]))
    if form == "local nat64":
        return draw(
            st.sampled_from(
                [f"64:ff9b:1::{high:x}:{low:x}", f"64:ff9b:1:{high:x}:{low >> 8:x}:{(low & 0xFF) << 8:x}::"]
            )
        )
    if form == "6to4":
        return f"2002:{high:x}:{low:x}::{draw(st.integers(0, 0xFFFF)):x}"
    count = draw(st.integers(1, 4))
    numbers = [*octets[: count - 1], int.from_bytes(bytes(octets[count - 1 :]))]
    formats = ["{:d}", "0x{:x}", "0X{:X}", "0{:o}", "0x000{:x}"]
    return ".".join(draw(st.sampled_from(formats)).format(part) for part in numbers)


@given(spellings())
def test_no_range_ever_covers_a_metadata_address(host: str) -> None:
    decision = WIDEST.decide(connect(host, 80))
    assert not decision.allowed, host
    assert "must name by itself" in decision.reason


@pytest.mark.parametrize("host", ["fe80::1", "fe80::1%eth0", "febf::1", "fd00:ec2::254", "FD00:0ec2:0::0254"])
def test_nor_one_of_ipv6(host: str) -> None:
    assert not WIDEST.decide(connect(host, 80)).allowed


@given(spellings())
def test_a_rule_that_names_it_lets_through_that_one_only(host: str) -> None:
    rights = NAMED
    same = WIDEST.forbids(connect(host, 80)) is not None and rights.decide(connect(host, 80)).allowed
    assert same == (host.startswith(("::", "0", "1", "2")) and _is_ipv4(host))
    assert not rights.decide(connect("169.254.169.254", 81)).allowed


def _is_ipv4(host: str) -> bool:
    """Whether the kernel dials 169.254.169.254 for it, not the address of a translator."""
    import socket

    if ":" in host:
        return host.lower() in ("::ffff:a9fe:a9fe", "::ffff:169.254.169.254")
    return socket.inet_aton(host) == bytes([169, 254, 169, 254])


@pytest.mark.parametrize("kind", [PrincipalKind.LOCAL_PROCESS, PrincipalKind.KUBE_APISERVER, PrincipalKind.SERVER])
def test_nor_does_a_built_in_group(kind: PrincipalKind) -> None:
    who = Principal(kind=kind, name="x")
    assert rights_of("").decide(connect(principal=who)).allowed
    assert not rights_of("").decide(connect("169.254.169.254", 80, principal=who)).allowed


def test_what_the_configuration_names_is_named() -> None:
    for kind in (PrincipalKind.STATIC_FORWARD, PrincipalKind.AGENT):
        assert rights_of("").decide(connect("169.254.169.254", 80, principal=Principal(kind=kind, name="x"))).allowed
    assert rights_of("").decide(connect(principal=user())).allowed is False
