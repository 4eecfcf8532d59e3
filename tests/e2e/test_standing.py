"""Taken away at once: each kind of loss ends every way in within a second, at both ends, and nobody else's."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pwd
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from tests.support.cluster import Cluster, cluster
from tests.support.connect_client import ConnectRefused
from tests.support.ports import free_ports
from tests.support.targets import Target
from tests.support.tunnel import wait_until
from tests.support.waits import scaled_s
from tests.support.ways_in import ALL, AT_BOXES, Person, Way

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

BOX, OTHER = "box-7", "box-8"
WITHIN_S = 1.0
LIFE_S = 25
"""Of a token that ends while it is in use: long enough to begin everything."""

POLICY = """\
[[binding]]
role = "admin"
users = ["admin", "dialer", "stays", {admins}]

[[role]]
name = "operators"
[[role.allow]]
name = "by-label"
labels = {{ site = "a" }}
[[role]]
name = "group"
[[role.allow]]
name = "by-group"
[[binding]]
role = "operators"
users = ["labelled"]
[[binding]]
role = "group"
groups = ["ops"]
"""


class Town:
    """A server with two boxes, and people."""

    def __init__(self, made: Cluster, socks_port: int, echo_port: int) -> None:
        self.cluster = made
        self._socks_port, self._echo_port = socks_port, echo_port

    def person(self, name: str, *options: str, groups: Sequence[str] = (), login: bool = False) -> Person:
        """A new user with a token in a kubeconfig, or a login."""
        self.cluster.typed("user", "add", name, *(word for group in groups for word in ("--group", group)))
        path = self.cluster.login(name, *options) if login else self.cluster.login(name, "--token", *options)
        return Person(self.cluster, path, self.cluster.folder / name, self._socks_port, self._echo_port)

    def rule(self, *admins: str) -> None:
        """These users may do everything from now on, beside those who always may."""
        beside = self.cluster.policy.with_suffix(".new")
        beside.write_text(POLICY.format(admins=", ".join(f'"{name}"' for name in admins)))
        beside.replace(self.cluster.policy)

    def records(self, who: str, *events: str) -> list[dict[str, Any]]:
        """What the server recorded of a user."""
        lines = [line for line in self.cluster.server.log.read_text().splitlines() if line[:1] == "{"]
        found = [record for record in map(json.loads, lines) if record.get("event") in events]
        return [record for record in found if record.get("who") == who]

    def ended(self, who: str, ways: Sequence[Way], code: str, since_s: float, box: str = BOX) -> None:
        """Each of the ways is over within a second of a moment, not cleanly, and both ends know why."""
        late = since_s + scaled_s(WITHIN_S)
        running = [way.name for way in ways if not way.join(late - time.monotonic())]
        assert not running, f"still under way: {running}"
        for way in ways:
            assert "exit code 0" not in way.said or way.name == "kubectl watch", f"{way.name}: {way.said}"
            assert "clean end" not in way.said, f"{way.name}: {way.said}"
            assert "something" not in way.said, f"{way.name}: {way.said}"
            # kubectl exits with 0 from a watch however it ends, and prints what it was told.
            assert code in way.said or way.name in AT_BOXES, f"{way.name}: {way.said}"
        at_boxes = [way for way in ways if way.name in AT_BOXES]

        def lost(*events: str) -> list[dict[str, Any]]:
            records = self.records(who, *events)
            return [record for record in records if (record["code"], record["reason"]) == (code, "standing_lost")]

        # kubectl port-forward has a stream for its connection, and one for errors, on one connection of ours.
        wait_until(lambda: len(lost("end")) == len(at_boxes), f"{who}'s connections are recorded as lost")
        wait_until(lambda: len(lost("taken_away")) == len(ways) - len(at_boxes), f"{who}'s watches are, too")
        agent = self.cluster.boxes[box].agent
        for record in lost("end"):
            line = wait_for(partial(of_trace, agent.log_text, record["trace_id"]))
            assert (line["reason"], line["code"]) in (("standing_lost", code), ("session_lost", code)), line


def of_trace(log: Callable[[], str], trace_id: str) -> dict[str, Any] | None:
    """The record of the end of a connection in a box's log."""
    for line in log().splitlines():
        if trace_id in line and '"reason"' in line:
            record: dict[str, Any] = json.loads(line)
            return record
    return None


def wait_for(find: Callable[[], dict[str, Any] | None]) -> dict[str, Any]:
    wait_until(lambda: find() is not None, "the box has recorded it")
    found = find()
    assert found is not None
    return found


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    with cluster() as made, Target("echo") as echo:
        (socks_port,) = free_ports(1)
        made.configure({"socks": {"listen": f"127.0.0.1:{socks_port}"}})
        town = Town(made, socks_port, echo.port)
        town.rule()
        made.start()
        log = made.folder / "app.log"
        log.write_text("line 1\n")
        host = {"exec": True, "user": pwd.getpwuid(os.geteuid()).pw_name, "files": [str(log)]}
        for name in (BOX, OTHER):
            made.join(name, allow=[f"127.0.0.1:{echo.port}"], host=host)
            made.start_box(name)
            made.typed("agent", "label", name, "site=a")
        yield town


@pytest.fixture(scope="module")
def bystanders(town: Town) -> Iterator[list[Way]]:
    """What somebody else has under way all the time."""
    with town.person("stays").under_way(BOX) as ways:
        yield ways


@pytest.fixture(autouse=True)
def nobody_else_is_disturbed(bystanders: list[Way]) -> Iterator[None]:
    yield
    assert [way.name for way in bystanders if way.ended_s is not None] == []


def refusals(person: Person, kept: http.client.HTTPSConnection, half: Any) -> tuple[int, str, str, int]:
    """What is answered at once: on a connection that was kept alive, by CONNECT, and at SOCKS behind the login."""
    status, text = person.ask(kept)
    with pytest.raises(ConnectRefused) as caught:
        person.dial(BOX).close()
    return status, text, str(caught.value), person.ask_at_socks(half, BOX)


@pytest.mark.parametrize(
    ("loss", "code", "told"),
    [("user revoke", "LL4314", "LL2041"), ("token revoke", "LL4314", "LL2040"), ("expiry", "LL4315", "LL2043")],
)
def test_a_credential_that_is_lost(town: Town, loss: str, code: str, told: str) -> None:
    name = loss.replace(" ", "-")
    town.rule(name)
    options = ["--expires", f"{LIFE_S}s"] if loss == "expiry" else []
    person = town.person(name, *options)
    made_s = time.monotonic()  # at the latest
    with person.under_way(BOX) as ways, contextlib.closing(person.fleet()) as kept, person.login_at_socks() as half:
        assert person.ask(kept)[0] == 200
        if loss == "expiry":
            wait_until(lambda: time.monotonic() > made_s + LIFE_S, "the token ends", LIFE_S)
            since_s = made_s + LIFE_S
        else:
            assert not [way.name for way in ways if way.ended_s is not None]
            words = {"user revoke": ["user", "revoke", name], "token revoke": ["token", "revoke", "--user", name]}
            town.cluster.typed(*words[loss])
            since_s = time.monotonic()
        if loss != "expiry":
            status, text, refused, replied = refusals(person, kept, half)
            assert (status, told in text, told in refused, replied) == (401, True, True, 2), (text, refused)
        town.ended(name, ways, code, since_s)
        status, text = person.ask(kept)
        assert (status, told in text) == (401, True)


def test_a_login_that_is_revoked(town: Town) -> None:
    """And with it the certificates that were got with it."""
    town.rule("lena")
    lena = town.person("lena", login=True)
    with lena.under_way(BOX, ("exec", "logs", "port-forward", "kubectl watch", "events")) as ways:
        town.cluster.typed("token", "revoke", "--user", "lena")
        town.ended("lena", ways, "LL4314", time.monotonic())


@pytest.mark.parametrize("loss", ["policy", "groups", "labels"])
def test_rules_that_allow_no_more(town: Town, loss: str) -> None:
    name = {"policy": "ruled", "groups": "grouped", "labels": "labelled"}[loss]
    town.rule("ruled")
    person = town.person(name, groups=["ops"] if loss == "groups" else [])
    wait_until(lambda: _reaches(person), "the policy is in force")
    before = len(town.records(name, "end"))
    with person.under_way(BOX, AT_BOXES) as ways, person.login_at_socks() as half:
        if loss == "policy":
            generation = _policy_generation(town)
            town.rule()
            wait_until(lambda: _policy_generation(town) > generation, "the policy is followed")
        elif loss == "groups":
            town.cluster.typed("user", "add", name, "--group", "others")
        else:
            town.cluster.typed("agent", "label", BOX, "site=b")
        since_s = time.monotonic()
        assert len(town.records(name, "end")) >= before
        town.ended(name, ways, "LL4312", since_s)
        assert person.ask_at_socks(half, BOX) == 2
        with pytest.raises(ConnectRefused, match="LL4101"):
            person.dial(BOX).close()
    town.cluster.typed("agent", "label", BOX, "site=a")


def _reaches(person: Person) -> bool:
    try:
        person.dial(BOX).close()
    except ConnectRefused:
        return False
    return True


def _policy_generation(town: Town) -> int:
    return sum('"event":"policy"' in line for line in town.cluster.server.log_text().splitlines())


def test_an_agent_that_is_revoked(town: Town) -> None:
    """Its own end hears it, too; watches go on."""
    town.rule("visitor")
    person = town.person("visitor")
    wait_until(lambda: _reaches(person), "the policy is in force")
    with person.under_way(OTHER, AT_BOXES) as ways, person.under_way(BOX, [n for n in ALL if n not in AT_BOXES]) as on:
        town.cluster.typed("agent", "revoke", OTHER)
        town.ended("visitor", ways, "LL2015", time.monotonic(), OTHER)
        assert [way.name for way in on if way.ended_s is not None] == []
