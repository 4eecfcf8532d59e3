"""Why something may be done or not."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_server.rights.explain import AskUnclear, build_ask, explain
from tests.support.policies import rights_of
from tunnel.aio.operate.explained import explanation_text

RIGHTS = rights_of(
    """
    [[role]]
    name = "operators"
    [[role.allow]]
    targets = ["10.0.0.0/8:443"]
    [[role.allow]]
    name = "shell"
    verbs = ["exec"]
    accounts = ["app"]
    record = true
    [[role.deny]]
    agents = ["secret-*"]
    [[binding]]
    role = "operators"
    groups = ["ops"]
    """
)


def test_rules_that_matched_one_that_decided_and_why_the_others_did_not() -> None:
    ask = build_ask(user="ann", groups=["ops"], agent="secret-1", target="10.0.0.1:443")
    assert explanation_text(explain(RIGHTS, ask).as_json()).splitlines() == [
        "denied by operators.deny[0]",
        "  asked    user ann, in ops: connect to 10.0.0.1:443 at secret-1 through connect",
        "  roles    operators",
        "  decided  deny  operators.deny[0] (role operators, by group ops)",
        "  matched  allow operators.allow[0] (role operators, by group ops)",
        "  not      allow shell (role operators, by group ops): it is about other verbs",
    ]


def test_an_exec_tells_accounts_and_recording() -> None:
    ask = build_ask(user="ann", groups=["ops"], agent="box-7", verb="exec", unit="host")
    shown = explain(RIGHTS, ask).as_json()
    assert (shown["allowed"], shown["rule"], shown["accounts"], shown["record"]) == (True, "shell", ["app"], True)
    assert shown["asked"]["frontend"] == "fleet"
    text = explanation_text(shown)
    assert "  accounts app\n  record   an interactive exec is recorded at the box" in text


def test_somebody_whom_nothing_allows_and_a_built_in_group() -> None:
    eve = explain(RIGHTS, build_ask(user="eve\x1b[2J", target="[fd00::1]:443", agent="box-7")).as_json()
    text = explanation_text(eve)
    assert text.startswith("denied by default deny: no rule lets user eve? connect to [fd00::1]:443 at box-7")
    assert "roles    none" in text
    server = explain(RIGHTS, build_ask(user="", groups=["system:forwards"], target="service:ssh")).as_json()
    assert (server["rule"], server["matched"][0]["by"]) == ("system:forwards", "every static_forward")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"user": "ann"}, "neither a target nor a verb"),
        ({"user": "ann", "verb": "fly"}, "'fly' is no verb; there are connect, get"),
        ({"user": "ann", "verb": "logs", "target": "a:1"}, "logs has no target"),
        ({"user": "ann", "target": "a"}, "'a' is no target"),
        ({"user": "ann", "target": "a:65536"}, "is no target"),
        ({"user": "", "target": "a:1"}, "says not who asks"),
        ({"user": "ann", "verb": "connect"}, "connect needs a target"),
    ],
)
def test_what_cannot_be_understood(words: dict[str, Any], said: str) -> None:
    with pytest.raises(AskUnclear, match=said):
        build_ask(**words)


def test_names_that_are_longer_than_any_are_not_weighed() -> None:
    long = "a" * 254
    for given in ({"user": long}, {"agent": long}, {"unit": long}, {"whom": f"user:{long}"}):
        with pytest.raises(AskUnclear, match="longer than any name"):
            build_ask(**{"user": "ann", "verb": "exec", **given})  # type: ignore[arg-type]
