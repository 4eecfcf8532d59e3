"""The policy file: every fault at once with its line, its own tests, what changed, and what `policy` prints of it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cloud_server.rights.changes import policy_changes
from cloud_server.rights.policy_file import NO_POLICY, first_policy, load_policy, load_policy_if_any
from cloud_server.rights.shown import policy_json, policy_text
from tests.support.policies import policy_of
from tunnel.aio.process.config import MAX_FAULT_CHARS, MAX_FAULTS, ConfigError
from tunnel.core.wire.faults import CONFIG_NOT_TOML, POLICY_INVALID


def faults_of(folder: Path, text: str) -> list[str]:
    path = folder / "policy.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_policy(path)
    assert caught.value.fault is POLICY_INVALID
    return [fault.removeprefix(f"{path}:") for fault in caught.value.faults]


def test_every_fault_is_told_with_its_line(tmp_path: Path) -> None:
    text = """\
[[role]]
name = "a"
[[role.allow]]
agent = ["x"]
[[role.deny]]
verbs = ["exce"]
[[role]]
name = "b"
[[role.allow]]
targets = ["10.0.0.0/8"]
[[role.allow]]
whom = ["ann"]
labels = { site = 7 }
[[binding]]
role = "a"
user = ["ann"]
"""
    assert [fault.split(";")[0] for fault in faults_of(tmp_path, text)] == [
        "4: role[0].allow[0].agent: is not known, did you mean agents?",
        (
            "6: role[0].deny[0].verbs[0]: must be one of connect, get, logs, exec, port-forward, cp, observe,"
            " administer, impersonate"
        ),
        "10: role[1].allow[0].targets[0]: '10.0.0.0/8' has no port",
        "12: role[1].allow[1].whom[0]: 'ann' does not say whom: write user:NAME or group:NAME",
        "13: role[1].allow[1].labels.site: must be a string, not 7",
        "16: binding[0].user: is not known, did you mean users?",
    ]


def test_what_does_not_fit_together(tmp_path: Path) -> None:
    text = """\
[[role]]
name = "admin"
[[role]]
name = "operators"
[[role.allow]]
name = "one"
agents = []
[[role.allow]]
name = "one"
verbs = ["get"]
units = ["host"]
[[role.deny]]
accounts = ["root"]
[[role]]
name = "operators"
[[binding]]
role = "operator"
users = ["ann"]
[[binding]]
role = "viewer"
[[binding]]
role = "viewer"
groups = ["system:agent"]
"""
    assert faults_of(tmp_path, text) == [
        "1: role[0]: has no rule: it needs a [[role.allow]] or a [[role.deny]]",
        "2: role[0].name: 'admin' is built in: take another name",
        "7: role[1].allow[0].agents: is empty, and would fit nothing: leave it out for no limit",
        "9: role[1].allow[1].name: 'one' is the name of another rule already",
        "11: role[1].allow[1].units: limits only cp, exec, logs, and none of it is in verbs",
        "13: role[1].deny[0].accounts: belongs to an allow: a deny refuses, it does not change how",
        "14: role[2]: has no rule: it needs a [[role.allow]] or a [[role.deny]]",
        "15: role[2].name: 'operators' is there already: add the rules to that one",
        "17: binding[0].role: there is no role 'operator', did you mean operators?",
        "19: binding[1]: gives the role to nobody: it needs users or groups",
        (
            "23: binding[2].groups: 'system:agent' is no group that is built in, did you mean system:agents?; there are"
            " system:agents, system:forwards, system:kube-apiserver, system:local-process, system:server"
        ),
    ]


ROLE = """\
[[role]]
name = "operators"
[[role.allow]]
agents = ["site-a-*"]
targets = ["127.0.0.1:22"]
[[binding]]
role = "operators"
users = ["ann"]
"""


def test_a_test_that_fails_rejects_the_file(tmp_path: Path) -> None:
    text = (
        ROLE
        + """\
[[test]]
user = "ann"
agent = "site-a-1"
target = "127.0.0.1:22"
expect = "allow"
[[test]]
name = "ann stays at her site"
user = "ann"
agent = "site-a-1"
target = "127.0.0.1:22"
expect = "deny"
[[test]]
user = "ann"
agent = "site-b-1"
verb = "exec"
unit = "host"
expect = "allow"
[[test]]
user = "ann"
verb = "connect"
expect = "deny"
[[test]]
target = "a:1"
expect = "deny"
[[test]]
groups = ["system:kube-apiserver"]
target = "a:1"
expect = "allow"
"""
    )
    assert faults_of(tmp_path, text) == [
        "14: test[1]: the test (ann stays at her site) expects deny, but it is allowed by operators.allow[0]",
        (
            "20: test[2]: the test expects allow, but it is denied by default deny: no rule lets user ann exec of host"
            " at site-b-1"
        ),
        "26: test[3]: connect needs a target",
        "30: test[4]: says not who asks: a user, or one of the groups that are built in",
    ]


def test_what_is_no_toml_is_told_as_for_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("[[role]]\nname = \n")
    with pytest.raises(ConfigError, match=r"policy\.toml:2: is not TOML: Invalid value") as caught:
        load_policy(path)
    assert caught.value.fault is CONFIG_NOT_TOML


def test_none_is_no_fault_but_one_that_cannot_be_read_is(tmp_path: Path) -> None:
    assert load_policy_if_any(tmp_path / "policy.toml") is None
    with pytest.raises(ConfigError, match="Is a directory"):
        load_policy_if_any(tmp_path)


def test_the_first_one(tmp_path: Path) -> None:
    text = first_policy(["ann", 'o"b'.replace('"', "")])
    made = policy_of(text)
    assert [(one.role, one.users) for one in made.binding] == [("admin", ["ann", "ob"])]
    examples = "\n".join(line.removeprefix("# ").removeprefix("#") for line in text.splitlines()[7:])
    assert len(policy_of(examples).test) == 1, "what stands behind it as a comment can be used"


def test_what_changed_is_told_by_role_and_binding() -> None:
    old = policy_of(ROLE)
    new = policy_of(
        """
        [[binding]]
        role = "operators"
        users = ["bob", "ann"]
        [[binding]]
        role = "viewer"
        groups = ["ops"]
        [[role]]
        name = "operators"
        [[role.allow]]
        agents = ["site-a-*"]
        targets = ["127.0.0.1:22", "127.0.0.1:80"]
        [[role]]
        name = "logs"
        [[role.allow]]
        verbs = ["logs"]
        """
    )
    assert [str(one) for one in policy_changes(old, new)] == [
        'role operators: allow: - agents = ["site-a-*"], targets = ["127.0.0.1:22"]',
        'role operators: allow: + agents = ["site-a-*"], targets = ["127.0.0.1:22", "127.0.0.1:80"]',
        "role logs: added, with 1 rule",
        "binding of user bob to operators: added",
        "binding of group ops to viewer: added",
    ]
    gone = [str(one) for one in policy_changes(new, NO_POLICY)]
    assert gone[:2] == ["role operators: removed", "role logs: removed"]
    assert "binding of user ann to operators: removed" in gone
    regrouped = ROLE + "[[binding]]\nrole = 'operators'\nusers = ['ann']\n"
    assert policy_changes(old, policy_of(regrouped)) == []


def test_what_is_shown() -> None:
    made = policy_of(ROLE)
    shown = {role["name"]: role for role in policy_json(made)["roles"]}
    assert shown["admin"] == {
        "name": "admin", "builtin": True, "allow": [{}], "deny": [], "users": [], "groups": [],
    }  # fmt: skip
    assert shown["operators"]["allow"] == [{"agents": ["site-a-*"], "targets": ["127.0.0.1:22"]}]
    text = policy_text(made)
    assert 'role operators\n  allow  agents = ["site-a-*"], targets = ["127.0.0.1:22"]\n  users  ann' in text
    assert "role admin (built in)\n  allow  everything" in text


def test_of_ten_thousand_faults_the_first_are_told_and_the_others_counted(tmp_path: Path) -> None:
    roles = "".join(f'[[role]]\nname = "role-{n}"\n[[role.allow]]\nverbs = ["get"]\n' for n in range(300))
    bindings = "".join(f'[[binding]]\nrole = "rolle-{n}"\nusers = ["ann"]\n' for n in range(10_000))
    began_s = time.thread_time()
    faults = faults_of(tmp_path, roles + bindings)
    assert time.thread_time() - began_s < 5, "a name that is close was looked for 10,000 times: 27 s"
    assert faults[0] == "1202: binding[0].role: there is no role 'rolle-0', did you mean role-0?"
    assert len(faults) == MAX_FAULTS + 1
    assert faults[-1] == " and 9,980 more"


def test_a_fault_repeats_no_more_of_the_file_than_fits_a_line(tmp_path: Path) -> None:
    (fault,) = faults_of(tmp_path, f'[[binding]]\nrole = "{"x" * 253}"\nusers = ["{"y" * 100_000}"]\n')
    assert len(fault) < MAX_FAULT_CHARS + 50
