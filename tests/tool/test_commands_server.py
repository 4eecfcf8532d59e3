"""status, agents, opens, events and whoami as processes, over the admin socket and over TLS."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.admin_server import AdminServer, admin_server
from tests.support.connect_server import server_context, write_kubeconfig
from tests.support.pki import Authority
from tests.support.processes import BIN, environment
from tests.support.waits import scaled_s
from tunnel.tool.admin import agent_text, agents_text, event_text, open_change_text, status_text, whoami_text

Ran = subprocess.CompletedProcess[str]


@dataclass
class Made:
    """A server, and the words that lead to it."""

    admin: AdminServer
    where: list[str]

    def run(self, *words: str, code: int = 0) -> Ran:
        done = subprocess.run(
            [str(BIN / "longline"), *words, *self.where], capture_output=True, text=True, env=environment(),
            timeout=scaled_s(30),
        )  # fmt: skip
        assert done.returncode == code, done
        assert "Traceback" not in done.stderr
        return done

    def json(self, *words: str, code: int = 0) -> object:
        return json.loads(self.run(*words, "-o", "json", code=code).stdout)


@contextmanager
def made_on(tmp_path: Path, way: str) -> Iterator[Made]:
    if way == "socket":
        path = tmp_path / "admin.sock"
        with admin_server(path) as (admin, _):
            yield Made(admin, ["--socket", str(path)])
        return
    authority = Authority()
    with admin_server(server_context(authority, tmp_path)) as (admin, port):
        kubeconfig = tmp_path / "me.kubeconfig"
        write_kubeconfig(authority, kubeconfig)
        text = kubeconfig.read_text()
        config = json.loads(text)
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{port}"
        kubeconfig.write_text(json.dumps(config))
        yield Made(admin, ["--kubeconfig", str(kubeconfig)])


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    with made_on(tmp_path, "socket") as one:
        yield one


@pytest.mark.parametrize("way", ["socket", "tls"])
def test_the_same_documents_both_ways(tmp_path: Path, way: str) -> None:
    with made_on(tmp_path, way) as made:
        for path, words in (("agents", ["agents"]), ("whoami", ["whoami"])):
            assert made.json(*words) == made.admin.samples["GET", path]["body"]


@pytest.mark.parametrize(("verdict", "code"), [("good", 0), ("warning", 1), ("bad", 2), ("of another time", 2)])
def test_status_ends_with_its_verdict(made: Made, verdict: str, code: int) -> None:
    sample = made.admin.samples["GET", "status"]["body"]
    sample["verdict"] = verdict
    assert made.json("status", code=code) == sample


def test_a_server_that_does_not_answer_is_bad(tmp_path: Path) -> None:
    done = Made(AdminServer(), ["--socket", str(tmp_path / "none.sock")]).run("status", code=2)
    assert "none.sock: no such file or directory" in done.stderr


def test_opens_are_watched_and_killed(made: Made) -> None:
    lines = made.admin.samples["GET", "opens?watch=1"]["lines"]
    watched = made.run("opens", "--watch", "-o", "json").stdout.splitlines()
    assert [json.loads(line) for line in watched] == lines
    done = subprocess.run(
        [str(BIN / "longline"), "opens", *made.where, "kill", "a-17"], capture_output=True, text=True, env=environment()
    )
    assert (done.returncode, done.stdout) == (0, "a-17 is ended\n")
    assert made.admin.asked[-1][:2] == ("DELETE", "opens/a-17")
    done = subprocess.run(
        [str(BIN / "longline"), "opens", "kill", "a-99", *made.where], capture_output=True, text=True, env=environment()
    )
    assert (done.returncode, done.stderr) == (1, "Error [LL1041]: no connection a-99 runs now\n")


def test_events_that_break_off_are_no_success(made: Made) -> None:
    made.admin.cut = True
    done = made.run("events", "--follow", code=1)
    assert len(done.stdout.splitlines()) == 2
    assert "the connection ended in the middle of the answer" in done.stderr


def test_an_error_has_its_code_its_remedy_and_a_close_name(made: Made) -> None:
    done = made.run("agents", "box-9", code=1)
    assert done.stderr.startswith("Error [LL4001]: there is no agent named box-9: longline agents shows them")
    assert "did you mean box-" in done.stderr


def sample(made: AdminServer, path: str) -> dict[str, object]:
    body: dict[str, object] = made.samples["GET", path]["body"]
    return body


def test_what_people_read() -> None:
    """Everything that matters is in the text, and nothing that a box says moves a cursor."""
    admin = AdminServer()
    text = status_text(sample(admin, "status"))
    assert text.startswith("warning: 1 of 2 agents is connected; 1 warning\n  LL2003  the certificate of the server")
    for shown in (
        "certificate renew",
        "1 of 2 connected, 1 away",
        "generation 2",
        "down     forward 127.0.0.1:2222",
        "users    2 of 3 may log in; the next to end is bob's, 2026-12-05T12:00:00Z",
        "policy.toml, generation 1, loaded ",
        "3 roles, 4 bindings",
    ):
        assert shown in text
    agents = sample(admin, "agents")["agents"]
    assert isinstance(agents, list)
    agents[0]["facts"][0]["text"] = "\x1b[2Jgone"
    table = agents_text(agents)
    assert "\x1b" not in table
    head, first, second = (line.split() for line in table.splitlines())
    assert head[:2] == ["NAME", "STATE"]
    assert first[:2] == ["box-7", "up"]
    assert "41" in first
    assert second[:2] == ["box-8", "never_came"]
    assert "its clock is 95 s behind" in agent_text(sample(admin, "agents/box-7"))
    change = admin.samples["GET", "opens?watch=1"]["lines"][0]
    assert "ann from 192.0.2.5:51000 -> box-7 127.0.0.1:22" in open_change_text(change)
    event = admin.samples["GET", "events?follow=1"]["lines"][0]
    assert (
        event_text(event) == "2026-11-29T11:00:00Z  away      box-8           box-8 is away: nothing was heard for 15 s"
    )
    assert "only agents: box-7" in whoami_text(sample(admin, "whoami"))


def test_who_may_what_and_until_when(made: Made) -> None:
    lines = [line.split() for line in made.run("user", "list").stdout.splitlines()]
    assert lines[0][:3] == ["NAME", "GROUPS", "ROLES"]
    assert lines[1][:8] == ["ann", "ops", "operators", "1", "login,", "1", "token", "2027-02-27T12:00:00Z"]
    assert lines[2][:4] == ["eve", "-", "-", "revoked"]
    shown = made.run("user", "show", "ann").stdout
    assert "roles         operators\n" in shown
    assert "may log in    until 2027-02-27T12:00:00Z\n" in shown
    assert "frontends: connect; agents: site-a; verbs: connect; targets: 127.0.0.1:6443" in shown
    eve = made.admin.samples["GET", "users/ann"]["body"]
    eve |= {"roles": [], "revoked": "2026-11-29T13:00:00Z", "reason": "\x1b[2Jleft", "credentials": []}
    shown = made.run("user", "show", "ann").stdout
    assert "roles         none: may do nothing; add a [[binding]]" in shown
    assert "may log in    no: revoked " in shown
    assert "\x1b" not in shown


def test_a_stranger_is_told_what_to_do(made: Made) -> None:
    for status in (401,):
        made.admin.samples["GET", "whoami"] |= {"status": status}
    assert "does not know you: ask for another kubeconfig" in made.run("whoami", code=1).stderr


def test_tls_is_checked(tmp_path: Path) -> None:
    with made_on(tmp_path, "tls") as made:
        kubeconfig = Path(made.where[1])
        write_kubeconfig(Authority(), stranger := tmp_path / "stranger.kubeconfig")
        config = json.loads(stranger.read_text())
        config["clusters"][0]["cluster"]["server"] = json.loads(kubeconfig.read_text())["clusters"][0]["cluster"][
            "server"
        ]
        stranger.write_text(json.dumps(config))
        made.where = ["--kubeconfig", str(stranger)]
        assert "its certificate is not trusted" in made.run("whoami", code=1).stderr
        assert not made.admin.asked


@pytest.mark.parametrize("until", ["soon", None, 5, "2026-01-31T12:00:00"])
def test_a_token_whose_end_is_no_date_is_an_error_in_one_line(made: Made, until: object) -> None:
    made.admin.samples["POST", "user-tokens"] = {"status": 201, "body": {"token": "t0ken", "until": until}}
    done = made.run("user", "token", "ann", code=1)
    assert done.stdout == ""
    assert "the answer to POST /longline/v1/user-tokens cannot be used: until must be a time such as" in done.stderr
    assert len(done.stderr.splitlines()) == 1
