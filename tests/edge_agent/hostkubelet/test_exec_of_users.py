"""Commands by the box's own rules, over the kubelet's API: who, which, as which account, and for how long."""

from __future__ import annotations

import os
import pwd

import pytest

from edge_agent.hostkubelet.command_pattern import CommandPattern
from edge_agent.hostkubelet.exec_rules import ExecRule
from edge_agent.hostkubelet.settings import HostSettings
from tests.edge_agent.hostkubelet.conftest import POD, Box, serving
from tests.edge_agent.hostkubelet.test_server import ME, ended
from tests.support.channel_client import STDIN, STDOUT, ChannelClient, UpgradeRefused, exec_target, upgrade_headers
from tests.support.waits import eventually
from tunnel.core.wire.audience import Audience
from tunnel.core.wire.errors import Code
from tunnel.core.wire.exec_terms import ANY_TERMS, ExecTerms
from tunnel.core.wire.principal import Principal, PrincipalKind


def only_for(users: tuple[str, ...], *commands: str, account: str = ME) -> ExecRule:
    return ExecRule(account, Audience(users), tuple(map(CommandPattern.parse, commands)))


def by_rules(*rules: ExecRule) -> HostSettings:
    return HostSettings(exec=True, rules=list(rules))


async def refused_exec(box: Box, *command: str, terms: ExecTerms = ANY_TERMS) -> tuple[int, str]:
    with pytest.raises(UpgradeRefused) as refused:
        await ChannelClient.open(box.connect(), exec_target(POD, command), [*upgrade_headers(), *terms.headers()])
    return refused.value.status, refused.value.message


async def test_only_the_listed_commands_run_and_a_refusal_is_recorded() -> None:
    async with serving(by_rules(only_for(("ann",), "echo hello *"), only_for(()))) as box:
        assert await box.run("echo", "hello", "world") == (0, b"hello world\n", b"")
        status, text = await refused_exec(box, "sh", "-c", "echo hello")
        assert status == 403
        assert text == "this box runs other commands than this for user:ann, only: 'echo hello *'"
        refused = box.records.of("refused")[-1]
        assert (refused["who"], refused["code"], refused["command"]) == ("ann", "LL5030", ["sh", "-c", "echo hello"])
    async with serving(by_rules(only_for(("bob",)))) as box:
        assert (await refused_exec(box, "id"))[1].startswith("this box runs no commands for user:ann")
        assert box.records.of("refused")[-1]["code"] == "LL4110"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
async def test_commands_run_as_the_account_of_the_rule_with_its_rights_and_no_others() -> None:
    rules = (only_for(("ann",), "id", account="nobody"), only_for(("ann",), account="daemon"))
    async with serving(by_rules(*rules)) as box:
        nobody = pwd.getpwnam("nobody")
        assert (await box.run("id"))[1].startswith(f"uid={nobody.pw_uid}(nobody) gid={nobody.pw_gid}".encode())
        assert (await box.run("id", "-un"))[1] == b"daemon\n"
        code, _, errors = await box.run("cat", "/etc/shadow")
        assert (code, b"ermission denied" in errors) == (1, True)
        assert box.records.of("open")[0]["account"] == "nobody"
        # The server may leave some of them out, and add none.
        terms = ExecTerms(frozenset({"daemon", "root"}))
        client = await ChannelClient.open(
            box.connect(), exec_target(POD, ["id", "-un"]), [*upgrade_headers(), *terms.headers()]
        )
        assert (await client.finish(), client.stdout) == (0, b"daemon\n")
        await client.duplex.aclose()
        status, text = await refused_exec(box, "id", terms=ExecTerms(frozenset({"root"})))
        assert (status, "as nobody, daemon only" in text) == (403, True)


async def test_other_rules_end_what_they_do_not_allow_and_nothing_else() -> None:
    async with serving(by_rules(only_for((), "sleep *", "cat"))) as box:
        sleeping, reading = await box.exec("sleep", "60"), await box.exec("cat", stdin=True)
        await sleeping.receive()
        await reading.receive()
        assert box.kubelet.apply(by_rules(only_for(("ann",), "cat"))) == 1
        reset = await ended(sleeping.duplex)
        assert (reset.code, "runs other commands than this for user:ann" in str(reset)) == (Code.NOT_ALLOWED, True)
        await reading.send(STDIN, b"still here")
        await reading.until(STDOUT, b"still here")
        assert box.kubelet.apply(by_rules(only_for(("bob",)))) == 1
        assert (await ended(reading.duplex)).code is Code.NOT_ALLOWED
        await eventually(lambda: len(box.records.of("end")) == 2, what="both ends")
        assert {record["reason"] for record in box.records.of("end")} == {"not_allowed"}


async def test_groups_of_who_asks_are_in_the_records() -> None:
    who = Principal(kind=PrincipalKind.USER, name="eve", groups=("ops", "web"), proof="token:9c21")
    async with serving(by_rules(ExecRule(ME, Audience((), ("web",))))) as box:
        client = box.connect(principal=who)
        channels = await ChannelClient.open(client, exec_target(POD, ["true"]))
        assert await channels.finish() == 0
        await client.aclose()
        await eventually(lambda: box.records.of("end"))
        record = box.records.of("open")[0]
        assert {name: record[name] for name in ("kind", "who", "groups", "proof")} == {
            "kind": "user", "who": "eve", "groups": ["ops", "web"], "proof": "token:9c21",
        }  # fmt: skip
