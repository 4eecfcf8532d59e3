"""Who may run what, and as which account: the box's own say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.hostkubelet.command_pattern import CommandPattern
from edge_agent.hostkubelet.exec_rules import ExecRule, ExecRules
from edge_agent.hostkubelet.status import KubeletError
from tests.support.principals import ANN
from tunnel.core.wire.audience import Audience
from tunnel.core.wire.faults import ACCOUNT_NOT_ALLOWED, COMMAND_NOT_LISTED, RULE_FOR_OTHERS, Fault
from tunnel.core.wire.principal import NOBODY, Principal, PrincipalKind

WORDS = st.text(alphabet="ab/.-* ?\\'\"", max_size=6)


def user(name: str, *groups: str) -> Principal:
    return Principal(kind=PrincipalKind.USER, name=name, groups=groups)


def rule(account: str, *commands: str, users: tuple[str, ...] = (), groups: tuple[str, ...] = ()) -> ExecRule:
    return ExecRule(account, Audience(users, groups), tuple(map(CommandPattern.parse, commands)))


def refused(rules: ExecRules, who: Principal, argv: list[str], accounts: set[str] | None = None) -> tuple[Fault, str]:
    with pytest.raises(KubeletError) as caught:
        rules.account_for(who, argv, accounts)
    assert caught.value.status == 403
    return caught.value.fault, caught.value.text


# Command lines


@pytest.mark.parametrize(
    ("pattern", "argv", "allowed"),
    [
        ("uptime", ["uptime"], True),
        ("uptime", ["uptime", "-p"], False),
        ("uptime", ["/tmp/uptime"], False),
        ("systemctl restart nginx", ["systemctl", "restart", "nginx"], True),
        ("systemctl restart nginx", ["systemctl", "restart", "nginx; id"], False),
        ("systemctl restart app-?", ["systemctl", "restart", "app-1"], True),
        ("systemctl restart app-?", ["systemctl", "restart", "app-10"], False),
        ("journalctl -u nginx *", ["journalctl", "-u", "nginx"], True),
        ("journalctl -u nginx *", ["journalctl", "-u", "nginx", "-n", "5"], True),
        ("journalctl -u nginx *", ["journalctl", "-u"], False),
        ("echo 'two words'", ["echo", "two words"], True),
        ("echo 'two words'", ["echo", "two", "words"], False),
        ("cat /var/log/*", ["cat", "/var/log/syslog"], True),
        ("cat /var/log/*.log", ["cat", "/var/log/app.log"], True),
        # A star is no way round: neither up, nor into a folder below, nor into an option, nor one word for two.
        ("cat /var/log/*.log", ["cat", "/var/log/../../etc/shadow.log"], False),
        ("cat /srv/*/app.log", ["cat", "/srv/../app.log"], False),
        ("cat /var/log/*.log", ["cat", "/var/log/private/app.log"], False),
        ("cat /var/log/*.log", ["cat", "/var/log/a.log", "/etc/shadow"], False),
        ("systemctl restart *.service", ["systemctl", "restart", "--root=x.service"], False),
        ("systemctl restart ?*.service x", ["systemctl", "restart", "-Hx.service", "x"], False),
        ("dd if=/srv/*", ["dd", "if=/srv/.."], False),
        ("git *", ["git"], True),
        ("git *", [], False),
        # What a shell would make something of means nothing here.
        ("echo $HOME", ["echo", "/root"], False),
        ("echo $HOME", ["echo", "$HOME"], True),
    ],
)
def test_command_lines(pattern: str, argv: list[str], allowed: bool) -> None:
    assert CommandPattern.parse(pattern).allows(argv) is allowed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "must name a program"),
        ("''", "must name a program"),
        ("* restart", "must name its program exactly"),
        ("/usr/bin/?s", "must name its program exactly"),
        ("echo 'open", "cannot be split into words: no closing quotation"),
        ("x " * 300, "more than 256 words"),
    ],
)
def test_what_is_no_command_line(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        CommandPattern.parse(text)


@given(argv=st.lists(WORDS, min_size=1, max_size=4))
def test_without_wildcards_a_pattern_is_one_command_line_and_no_other(argv: list[str]) -> None:
    import shlex

    pattern = CommandPattern.parse(shlex.join(["run", *argv]).replace("*", "x").replace("?", "y"))
    plain = [word.replace("*", "x").replace("?", "y") for word in ["run", *argv]]
    assert pattern.allows(plain)
    assert not pattern.allows([*plain, ""])
    assert not pattern.allows(plain[:-1])


@given(word=st.text(alphabet="ab/.-=:,", max_size=10))
def test_no_wildcard_leads_upwards_or_into_an_option(word: str) -> None:
    for pattern in ("run *x", "run /srv/*", "run ??", "run *.*", "run */*", "run * more"):
        if CommandPattern.parse(pattern).allows(["run", word, *(["more"] if "more" in pattern else [])]):
            assert not word.startswith("-")
            assert ".." not in word.split("/")


# Whose rules count


def test_the_closest_rules_count_and_no_others() -> None:
    rules = ExecRules(
        [
            rule("deploy"),
            rule("guest", "uptime", users=("bob",)),
            rule("web", users=("con-*",)),
            rule("nginx", "systemctl reload nginx", groups=("web",)),
            rule("root", groups=("ops",)),
        ]
    )
    assert rules.accounts == ["deploy", "guest", "web", "nginx", "root"]
    assert rules.account_for(ANN, ["sh"]) == "deploy"
    assert rules.account_for(user("ann", "ops"), ["sh"]) == "root"
    assert rules.account_for(user("con-7", "ops"), ["sh"]) == "web"
    assert rules.account_for(user("bob", "ops"), ["uptime"]) == "guest"
    # A rule for one person is a limit: what everybody or a group may does not count for them.
    fault, text = refused(rules, user("bob", "ops"), ["sh"])
    assert fault is COMMAND_NOT_LISTED
    assert text == "this box runs other commands than this for user:bob, only: 'uptime'"
    # Of several groups both count, in the file's order.
    both = user("eve", "ops", "web")
    assert rules.account_for(both, ["systemctl", "reload", "nginx"]) == "nginx"
    assert rules.account_for(both, ["sh"]) == "root"


def test_nobody_whom_no_rule_is_for_runs_anything() -> None:
    rules = ExecRules([rule("root", users=("ann",)), rule("root", groups=("system:local-process",))])
    for who in (user("bob"), user("bob", "system:local-process"), NOBODY):
        fault, text = refused(rules, who, ["id"])
        assert fault is RULE_FOR_OTHERS
        assert str(who) in text
        assert "ann" not in text
    assert rules.account_for(Principal(kind=PrincipalKind.LOCAL_PROCESS, name="uid:0"), ["id"]) == "root"


def test_the_server_narrows_the_accounts_and_never_widens_them() -> None:
    rules = ExecRules([rule("root", "reboot"), rule("deploy"), rule("www")])
    assert rules.account_for(ANN, ["reboot"], {"root", "deploy"}) == "root"
    assert rules.account_for(ANN, ["reboot"], {"deploy"}) == "deploy"
    assert rules.account_for(ANN, ["sh"], {"www", "nobody"}) == "www"
    for accounts, told in (({"toor"}, "toor"), (set[str](), "no account")):
        fault, text = refused(rules, ANN, ["sh"], accounts)
        assert fault is ACCOUNT_NOT_ALLOWED
        assert text.startswith("this box runs commands of user:ann as root, deploy, www only")
        assert f"(it allows {told})" in text
    fault, _ = refused(rules, ANN, ["sh"], {"root"})
    assert fault is COMMAND_NOT_LISTED


def test_a_refusal_is_short_however_long_the_list() -> None:
    rules = ExecRules([rule("root", *(f"run number-{number}" for number in range(500)))])
    _, text = refused(rules, ANN, ["sh"])
    assert text.endswith("'run number-7' and 492 more")
    long = ExecRules([rule("root", *(f"run {'x' * 500}{number}" for number in range(5)))])
    assert len(refused(long, ANN, ["sh"])[1]) < 700
