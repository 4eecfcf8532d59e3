"""What rules mean: each limit, deny before allow, the built-in roles and groups, scopes."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from cloud_server.rights.ask import Ask, Verb
from cloud_server.rights.engine import DEFAULT_DENY
from cloud_server.rights.scopes import SCOPE_RULE
from cloud_server.trust.caller import Scope
from tests.cloud_server.rights.asks import connect, fleet, user
from tests.support.policies import admins, rights_of
from tunnel.core.wire.principal import Principal, PrincipalKind
from tunnel.core.wire.target import ServiceTarget, UnknownTarget

ONE_RULE = "[[role]]\nname = 'r'\n[[role.{kind}]]\n{limit}\n[[binding]]\nrole = 'r'\nusers = ['ann']\n"


def allows(limit: str, ask: Ask) -> bool:
    """Whether a lone allow with this limit allows an ask."""
    return rights_of(ONE_RULE.format(kind="allow", limit=limit)).decide(ask).allowed


def denies(limit: str, ask: Ask) -> bool:
    """Whether a deny with this limit takes an ask from an administrator."""
    text = ONE_RULE.format(kind="deny", limit=limit) + "[[binding]]\nrole = 'admin'\nusers = ['ann']\n"
    return not rights_of(text).decide(ask).allowed


EXEC = fleet(Verb.EXEC, unit="host")


@pytest.mark.parametrize(
    ("limit", "fits", "does_not"),
    [
        ("agents = ['box-?']", connect(), connect(agent="box-77")),
        ("agents = ['site-*', 'box-7']", connect(), connect(agent="box-8")),
        ("agents = ['*']", connect(), fleet(Verb.OBSERVE, agent="")),
        ("labels = { site = 'lyon' }", connect(labels={"site": "lyon", "x": "y"}), connect(labels={"site": "paris"})),
        ("labels = { site = 'lyon' }", connect(labels={"site": "lyon"}), connect()),
        ("frontends = ['connect']", connect(), connect(frontend="socks")),
        ("verbs = ['logs', 'get']", fleet(Verb.GET), fleet(Verb.LOGS, principal=user("bob"))),
        ("targets = ['10.0.0.0/8:443']", connect(), connect(port=80)),
        ("targets = ['10.0.0.0/8:443']", connect("0xa010203"), connect("192.0.2.1")),
        ("targets = ['10.0.0.0/8:443']", connect("::ffff:10.1.2.3"), connect("db.example.com")),
        ("targets = ['*.example.com:1-1024']", connect("A.B.Example.com."), connect("example.com")),
        ("targets = ['db.example.com:443']", connect("db.example.com"), connect("xdb.example.com")),
        ("targets = ['*:22']", connect(port=22), connect()),
        ("targets = ['127.0.0.1:22']", connect("localhost", 22), connect("127.0.0.2", 22)),
        ("targets = ['localhost:22']", connect("LOCALHOST.", 22), connect("10.0.0.1", 22)),
        ("targets = ['[fd00::/8]:443']", connect("fd00::1"), connect("fe00::1")),
        ("targets = ['service:ssh']", connect(target=ServiceTarget("ssh")), connect(port=22)),
        ("targets = ['*']", connect(target=ServiceTarget("ssh")), EXEC),
        ("targets = ['10.0.0.0/8:443']", connect(), EXEC),
        ("targets = ['*:443']", connect(), connect(target=UnknownTarget())),
        ("units = ['nginx*']", fleet(Verb.LOGS, unit="nginx.service"), fleet(Verb.LOGS, unit="host")),
        ("units = ['host']", EXEC, fleet(Verb.GET)),
        ("verbs = ['get', 'logs']\nunits = ['a']", fleet(Verb.GET), fleet(Verb.LOGS, unit="b")),
        ("accounts = ['app']", EXEC, connect()),
        ("whom = ['user:o*']", fleet(Verb.IMPERSONATE, whom="user:ops"), fleet(Verb.IMPERSONATE, whom="group:ops")),
    ],
)  # fmt: skip
def test_each_limit(limit: str, fits: Ask, does_not: Ask) -> None:
    assert allows(limit, fits)
    assert not allows(limit, does_not)


@pytest.mark.parametrize(
    ("limit", "fits", "does_not"),
    [
        ("agents = ['box-7']", connect(), connect(agent="box-8")),
        ("targets = ['10.0.0.0/8:443']", connect("64:ff9b::a01:203"), connect(port=80)),
        ("targets = ['10.0.0.0/8:443']", connect("2002:a01:203::1"), connect("64:ff9b::b01:203")),
        ("units = ['host']", EXEC, fleet(Verb.EXEC, unit="web")),
        ("verbs = ['administer']", fleet(Verb.ADMINISTER, agent=""), fleet(Verb.OBSERVE, agent="")),
    ],
)
def test_a_deny_wins_over_an_administrators_role(limit: str, fits: Ask, does_not: Ask) -> None:
    assert denies(limit, fits)
    assert not denies(limit, does_not)


def test_what_decided_is_named() -> None:
    rights = rights_of(
        """
        [[role]]
        name = "operators"
        [[role.allow]]
        targets = ["10.0.0.0/8:443"]
        [[role.allow]]
        name = "ssh"
        targets = ["*:22"]
        [[role.deny]]
        targets = ["10.9.0.0/16:*"]
        [[binding]]
        role = "operators"
        groups = ["ops"]
        [[binding]]
        role = "admin"
        users = ["root"]
        """
    )
    ann = user("ann", "ops")
    assert rights.decide(connect(principal=ann)).rule == "operators.allow[0]"
    assert rights.decide(connect(principal=ann, port=22)).rule == "ssh"
    assert rights.decide(connect("10.9.0.1", principal=ann)) == (False, "operators.deny[0]", "", None, False)
    assert rights.decide(connect(principal=user("root"))).rule == "builtin admin"
    refused = rights.decide(connect(principal=user("eve")))
    assert (refused.rule, refused.reason) == (DEFAULT_DENY, "no rule lets user eve connect to 10.1.2.3:443 at box-7")
    assert "logs of a.service at box-7" in rights.decide(fleet(Verb.LOGS, unit="a.service")).reason


def test_a_viewer_looks_and_does_nothing() -> None:
    rights = rights_of("[[binding]]\nrole = 'viewer'\nusers = ['ann']\n")
    may = {verb for verb in Verb if rights.decide(fleet(verb)).allowed}
    assert may == {Verb.GET, Verb.OBSERVE}


@pytest.mark.parametrize(
    ("kind", "group", "verbs"),
    [
        (PrincipalKind.LOCAL_PROCESS, "system:local-process", {Verb.CONNECT, Verb.OBSERVE, Verb.ADMINISTER}),
        (PrincipalKind.KUBE_APISERVER, "system:kube-apiserver", {Verb.CONNECT}),
        (PrincipalKind.STATIC_FORWARD, "system:forwards", {Verb.CONNECT}),
        (PrincipalKind.AGENT, "system:agents", {Verb.CONNECT}),
        (PrincipalKind.SERVER, "system:server", {Verb.CONNECT, Verb.GET}),
        (PrincipalKind.UNKNOWN, "", set()),
    ],
)
def test_who_is_no_user(kind: PrincipalKind, group: str, verbs: set[Verb]) -> None:
    who = Principal(kind=kind, name="x", groups=("ops",))
    nothing = rights_of("")
    assert {verb for verb in Verb if nothing.decide(fleet(verb, principal=who)).allowed} == verbs
    if group:
        assert nothing.decide(connect(principal=who)).rule == group
        bound = f"[[role]]\nname = 'no'\n[[role.deny]]\nname = 'shut'\n[[binding]]\nrole = 'no'\ngroups = ['{group}']\n"
        assert rights_of(bound).decide(connect(principal=who)).rule == "shut"
        assert not nothing.decide(connect(principal=user("ann", group))).allowed, "a credential cannot claim it"


def test_accounts_come_together_and_recording_is_the_stricter() -> None:
    text = """
        [[role]]
        name = "a"
        [[role.allow]]
        accounts = ["app"]
        record = true
        [[role]]
        name = "b"
        [[role.allow]]
        verbs = ["exec"]
        accounts = ["web", "app"]
        [[binding]]
        role = "a"
        users = ["ann"]
        [[binding]]
        role = "b"
        users = ["ann", "bob"]
        """
    rights = rights_of(text)
    both = rights.decide(EXEC)
    assert (both.accounts, both.record) == (frozenset({"app", "web"}), True)
    bob = rights.decide(replace(EXEC, principal=user("bob")))
    assert (bob.accounts, bob.record) == (frozenset({"web", "app"}), False)
    admin = rights_of(text + "[[binding]]\nrole = 'admin'\nusers = ['ann']\n").decide(EXEC)
    assert (admin.allowed, admin.accounts) == (True, None)


@pytest.mark.parametrize(
    ("scope", "fits", "does_not"),
    [
        (Scope(frontends=frozenset({"connect"})), connect(), EXEC),
        (Scope(verbs=frozenset({"exec"})), EXEC, connect()),
        (Scope(agents=frozenset({"box-*"})), connect(), connect(agent="site-1")),
        (Scope(agents=frozenset({"site=lyon"})), connect(labels={"site": "lyon"}), connect()),
        (Scope(agents=frozenset({"*"})), connect(), fleet(Verb.ADMINISTER, agent="")),
        (Scope(agents=frozenset()), None, connect()),
        (Scope(targets=frozenset({"10.0.0.0/8:443"})), connect(), connect(port=80)),
        (Scope(targets=frozenset({"10.0.0.0/8:443"})), EXEC, connect("db.example.com")),
    ],
)
def test_a_scope_narrows(scope: Scope, fits: Ask | None, does_not: Ask) -> None:
    rights = admins()
    assert fits is None or rights.decide(replace(fits, scope=scope)).allowed
    refused = rights.decide(replace(does_not, scope=scope))
    assert (refused.allowed, refused.rule) == (False, SCOPE_RULE)
    assert "the credential is good" in refused.reason


def test_which_agents_are_shown() -> None:
    rights = rights_of(
        """
        [[role]]
        name = "lyon"
        [[role.allow]]
        verbs = ["get"]
        labels = { site = "lyon" }
        [[role.deny]]
        agents = ["secret-*"]
        [[binding]]
        role = "lyon"
        users = ["ann"]
        [[binding]]
        role = "viewer"
        users = ["bob"]
        [[binding]]
        role = "lyon"
        groups = ["system:server"]
        """
    )
    everything = Scope()
    shown = rights.agents_visible(user(), everything, "fleet")
    assert shown is not None
    agents: list[tuple[str, dict[str, str]]] = [
        ("box-1", {"site": "lyon"}),
        ("secret-1", {"site": "lyon"}),
        ("box-2", {}),
    ]
    assert [name for name, labels in agents if shown(name, labels)] == ["box-1"]
    assert rights.agents_visible(user("bob"), everything, "fleet") is None
    narrowed = rights.agents_visible(user("bob"), Scope(agents=frozenset({"box-1"})), "fleet")
    assert narrowed is not None
    assert [name for name, labels in agents if narrowed(name, labels)] == ["box-1"]
    server = rights.agents_visible(Principal(kind=PrincipalKind.SERVER, name="fleet"), everything, "fleet")
    assert server is not None
    assert not server("secret-1", {})
    assert server("box-2", {})
    for name, labels in agents:
        assert shown(name, labels) == rights.decide(fleet(Verb.GET, agent=name, labels=labels)).allowed


def test_a_pattern_of_many_stars_takes_no_time_that_grows_with_them() -> None:
    """By backtracking, this would not end before the world does: the event loop stands meanwhile."""
    stars = "a*" * 20 + "b"
    rights = rights_of(
        f"""
        [[role]]
        name = "starry"
        [[role.allow]]
        agents = ["{stars}"]
        verbs = ["exec"]
        [[role.allow]]
        verbs = ["logs"]
        units = ["{stars}"]
        [[role.allow]]
        verbs = ["impersonate"]
        whom = ["user:{stars}"]
        [[binding]]
        role = "starry"
        users = ["ann"]
        """
    )
    long = "a" * 253
    began_s = time.process_time()
    for end, allowed in (("", False), ("b", True)):
        assert rights.decide(fleet(Verb.EXEC, agent=long + end)).allowed is allowed
        assert rights.decide(fleet(Verb.LOGS, unit=long + end)).allowed is allowed
        assert rights.decide(fleet(Verb.IMPERSONATE, whom=f"user:{long}{end}")).allowed is allowed
    assert time.process_time() - began_s < 2
