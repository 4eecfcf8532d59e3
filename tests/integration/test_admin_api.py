"""What a running server tells of itself and lets be done to it: on its socket, and to users at the fleet API."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Generator, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import cloud_server.operate
from cloud_server.config import load_server_config
from cloud_server.issuing import create_user_token
from cloud_server.operate.api import Api
from cloud_server.trust.caller import UNLIMITED, Scope
from tests.support.admin_client import tls_client
from tests.support.cluster import Cluster
from tests.support.connect_client import ends_in_reset
from tests.support.processes import command_result, run_command
from tests.support.tunnel import BOX, Tunnel, exchange, tunnel, wait_until
from tunnel.aio.identity.keys import new_key, request_for
from tunnel.aio.operate.admin import Routes
from tunnel.aio.operate.admin_client import AdminClient, AdminRefused, unix_client

DOCUMENT: dict[str, Any] = json.loads((Path(cloud_server.operate.__file__).parent / "openapi.json").read_text())
NOBODY = "nobody"
OTHER = "box-2"
"""Another box than that of the tunnel."""


def schema_of(method: str, path: str, media: str = "application/json", *, error: bool = False) -> dict[str, Any]:
    operation = DOCUMENT["paths"][f"/longline/v1/{path}"][method.lower()]
    answer = operation["responses"]["default" if error else "200"]
    schema: dict[str, Any] = answer["content"][media]["schema"]
    return schema | {"components": DOCUMENT["components"]}


def check(document: object, schema: dict[str, Any]) -> None:
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(document)


class Checked:
    """Holds each answer to the document."""

    asked: set[tuple[str, str]] = set()  # noqa: RUF012 - of all tests of this file

    def __init__(self, client: AdminClient) -> None:
        self.client = client

    def get(self, path: str) -> Any:
        return self.ask("GET", path)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        route = re.sub(r"^agents/[^/]+", "agents/{name}", path.partition("?")[0])
        route = re.sub(r"^(opens|tokens)/[^/]+", r"\1/{id}", route)
        route = re.sub(r"^users/[^/]+", "users/{user}", route)
        try:
            answer = self.client.call(method, path, body)
        except AdminRefused as refused:
            error = {"code": refused.code or None, "text": refused.text, "remedy": refused.remedy or None}
            check({"error": error}, schema_of(method, route, error=True))
            raise
        self.asked.add((method, route))
        check(answer, schema_of(method, route))
        return answer

    def lines(self, path: str) -> contextlib.closing[Generator[Any, None, None]]:
        """The objects of a stream as they come."""
        return contextlib.closing(self.client.follow(path))


@pytest.fixture(scope="module")
def up() -> Iterator[Tunnel]:
    with tunnel(["echo"]) as made:
        yield made


@pytest.fixture(scope="module")
def admin(up: Tunnel) -> Checked:
    return Checked(unix_client(up.cluster.config.parent / "admin.sock"))


def records(cluster: Cluster, event: str, **about: object) -> list[dict[str, Any]]:
    """The audit records of an event, and with these fields, which are written a moment later: at least one."""

    def found() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in cluster.server.log.read_text().splitlines() if line[:1] == "{"]
        told = [line for line in lines if line.get("event") == event and "seq" in line]
        return [line for line in told if all(line.get(name) == value for name, value in about.items())]

    wait_until(found, f"there is a record of {event} with {about}")
    return found()


def test_the_document_has_the_routes_that_there_are_and_no_others() -> None:
    routes = Routes()
    Api(None, routes)  # type: ignore[arg-type]  # nobody asks
    described = {
        (method.upper(), path.removeprefix("/longline/v1/"))
        for path, methods in DOCUMENT["paths"].items()
        for method in methods
    }
    assert set(routes.paths()) == described


def test_how_it_fares(admin: Checked) -> None:
    status = admin.get("status")
    assert (status["verdict"], status["warnings"]) == ("good", [])
    assert status["line"].startswith("1 of 1 agent connected")
    assert {part["name"] for part in status["parts"]} >= {"connect", "fleet", "admin socket"}
    assert {one["name"] for one in status["certificates"]} == {"server", "ca"}
    assert (status["policy"]["roles"], status["policy"]["bindings"]) == (0, 1)


def test_an_open_is_seen_and_ended_on_both_sides(up: Tunnel, admin: Checked) -> None:
    with admin.lines("opens?watch=1") as lines, up.dial("echo") as through, up.dial("echo") as untouched:
        assert exchange(through, b"x" * 1000) == b"x" * 1000
        assert exchange(untouched) == b"ping"
        told: list[dict[str, Any]] = []
        for line in lines:
            check(line, schema_of("GET", "opens", "application/x-ndjson"))
            told.append(line)
            if line["open"]["bytes_from_agent"] == 1000:
                break
        found = admin.get("opens")["opens"]
        assert len(found) == 2
        (one,) = [one for one in found if one["bytes_to_agent"] == 1000]
        assert (one["agent"], one["kind"], one["frontend"]) == (BOX, "static_forward", "forward")
        assert admin.ask("DELETE", f"opens/{one['id']}") == {"id": one["id"], "killed": True}
        through.settimeout(5)
        assert ends_in_reset(through)
        assert next(line for line in lines if line["change"] == "closed")["open"]["id"] == one["id"]
        assert exchange(untouched, b"goes on") == b"goes on"
    with pytest.raises(AdminRefused) as gone:
        admin.ask("DELETE", f"opens/{one['id']}")
    assert (gone.value.status, gone.value.code) == (404, "LL4313")
    (end,) = records(up.cluster, "end", trace_id=one["trace_id"])
    assert (end["reason"], end["code"]) == ("killed", "LL4311")
    assert "local_process:uid:" in end["text"]
    records(up.cluster, "admin", action="kill_open", done=True, ended_trace_id=one["trace_id"])
    records(up.cluster, "admin", action="kill_open", done=False, code="LL4313")
    up.box.agent.wait_for_log(f'"trace_id":"{one["trace_id"]}"')


def test_the_frames_of_one_agent_are_logged_while_somebody_wants_them(up: Tunnel, admin: Checked) -> None:
    assert admin.ask("PUT", f"agents/{BOX}/frame-log", {"enabled": True})["enabled"]
    before = up.cluster.server.log.stat().st_size
    with up.dial("echo") as through:
        exchange(through)
    text = up.cluster.server.wait_for_log("< DATA", after=before)
    assert "> OPEN" in text
    assert not admin.ask("PUT", f"agents/{BOX}/frame-log", {"enabled": False})["enabled"]


def test_the_level_of_the_log(up: Tunnel, admin: Checked) -> None:
    assert admin.ask("PUT", "log-level", {"level": "debug"}) == {"level": "debug"}
    assert admin.ask("PUT", "log-level", {"level": "info"}) == {"level": "info"}
    bad: list[object] = [{"level": "loud"}, {}, [], None]
    for body in bad:
        with pytest.raises(AdminRefused) as refused:
            admin.ask("PUT", "log-level", body)
        assert refused.value.status == 400


def test_the_policy_explains_itself(admin: Checked) -> None:
    mine = admin.ask("POST", "policy/explain", {"user": "ann", "agent": BOX, "target": "127.0.0.1:22"})
    assert (mine["allowed"], mine["rule"], mine["matched"][0]["by"]) == (True, "builtin admin", "user ann")
    nobody = admin.ask("POST", "policy/explain", {"user": "mallory", "verb": "exec", "unit": "host", "labels": {}})
    assert (nobody["allowed"], nobody["rule"], nobody["roles"]) == (False, "default deny", [])
    for body in ({"user": "ann"}, {"user": 7}, {"user": "ann", "groups": "x"}, {"user": "ann", "labels": {"a": 1}}):
        with pytest.raises(AdminRefused) as caught:
            admin.ask("POST", "policy/explain", body)
        assert caught.value.status == 400


def test_tokens_are_made_by_the_running_server_and_are_good_at_once(up: Tunnel, admin: Checked) -> None:
    cluster = up.cluster
    with pytest.raises(AdminRefused, match="there is no user ann") as unknown:
        admin.ask("POST", "user-tokens", {"user": "ann"})
    assert (unknown.value.status, unknown.value.code) == (404, "LL1047")
    added = admin.ask("POST", "users", {"name": "ann", "groups": ["ops"]})
    assert (added["groups"], added["roles"]) == (["ops"], ["admin"])
    made = admin.ask("POST", "user-tokens", {"user": "ann", "expires_s": 3600})
    user = Checked(tls_client(cluster.fleet_port, cluster.operator_tls(certificate=False), made["token"]))
    me = user.get("whoami")
    assert (me["kind"], me["name"], me["until"][:16]) == ("user", "ann", made["until"][:16])
    assert me["proof"].startswith("token:")
    assert me["groups"] == ["ops"]
    assert me["scope"] == {"frontends": None, "agents": None, "verbs": None, "targets": None}
    join = admin.ask("POST", "join-tokens", {"agent": "box-9", "expires_s": 600})
    (cluster.folder / "made.token").write_text(join["token"])
    box = cluster.folder / "box-9"
    where = ["--server", cluster.tunnel_address, "--token-file", str(cluster.folder / "made.token")]
    run_command("edge-agent", "join", *where, "--state", str(box))
    agent = admin.get("agents/box-9")
    assert (agent["state"], agent["last_seen"]) == ("never_came", None)
    for body in ({"agent": "no/name"}, {"agent": "box-1", "expires_s": -1}, {"agent": 7}, {}):
        with pytest.raises(AdminRefused) as refused:
            admin.ask("POST", "join-tokens", body)
        assert refused.value.status == 400
    assert admin.ask("PUT", "agents/box-9/labels", {"labels": {"site": "lyon", "rack": None}}) == {
        "labels": {"site": "lyon"}
    }
    assert admin.get("agents/box-9")["operator_labels"] == {"site": "lyon"}
    (token,) = [one for one in admin.get("tokens")["tokens"] if one["user"] == "ann"]
    assert (token["created_by"], token["expires"]) == (f"local_process:uid:{os.geteuid()}", made["until"])
    assert admin.ask("DELETE", f"tokens/{token['id']}")["revoked"]
    with pytest.raises(AdminRefused, match="Unauthorized"):
        user.get("whoami")
    with pytest.raises(AdminRefused) as gone:
        admin.ask("DELETE", f"tokens/{token['id']}")
    assert (gone.value.status, gone.value.code) == (404, "LL1032")
    records(cluster, "admin", action="create_user_token", user="ann", done=True)
    records(cluster, "admin", action="create_join_token", agent="box-9", done=True)
    assert made["token"] not in cluster.server.log.read_text()


def test_users_are_made_and_taken_away(up: Tunnel, admin: Checked) -> None:
    csr = base64.b64encode(request_for(new_key())).decode()
    admin.ask("POST", "users", {"name": "eve"})
    made = admin.ask("POST", "certificates", {"user": "eve", "csr": csr, "expires_s": 600})
    eve = admin.get("users/eve")
    assert eve["roles"] == ["admin"]
    assert admin.ask("POST", "users", {"name": "unbound"})["roles"] == []
    assert [(one["kind"], one["id"]) for one in eve["credentials"]] == [("certificate", made["serial"])]
    assert admin.ask("POST", "users/eve/revoke", {"reason": "left"})["reason"] == "left"
    assert [one["name"] for one in admin.get("users")["users"] if one["revoked"]] == ["eve"]
    with pytest.raises(AdminRefused) as refused:
        admin.ask("POST", "certificates", {"user": "eve", "csr": csr})
    assert (refused.value.status, refused.value.code) == (409, "LL2041")
    for body in ({"user": "admin", "csr": "rubbish"}, {"user": "admin", "csr": "cnViYmlzaA=="}, {"user": "admin"}):
        with pytest.raises(AdminRefused) as bad:
            admin.ask("POST", "certificates", body)
        assert bad.value.status == 400
    records(up.cluster, "admin", action="revoke_user", user="eve", done=True)


def test_users_administer_from_elsewhere_and_strangers_do_not(up: Tunnel) -> None:
    cluster = up.cluster
    user = Checked(tls_client(cluster.fleet_port, cluster.operator_tls()))
    assert user.get("status")["agents"]["connected"] == 1
    with user.lines("events?follow=1") as lines:
        assert next(lines)["seq"] >= 1
    assert user.ask("PUT", "log-level", {"level": "info"}) == {"level": "info"}
    (did,) = records(cluster, "admin", who="dialer", kind="user", action="set_log_level")
    assert did["proof"].startswith("certificate:")
    records(cluster, "read", who="dialer", resource="longline/status")
    stranger = tls_client(cluster.fleet_port, cluster.operator_tls(certificate=False))
    for method, path in (("GET", "status"), ("POST", "reload"), ("GET", "events?follow=1")):
        with pytest.raises(AdminRefused) as refused:
            stranger.call(method, path)
        assert refused.value.status == 401


def test_who_may_nothing_does_not_fill_the_audit_log(up: Tunnel, admin: Checked) -> None:
    cluster = up.cluster
    admin.ask("POST", "users", {"name": "unbound"})
    token = admin.ask("POST", "user-tokens", {"user": "unbound"})["token"]
    user = tls_client(cluster.fleet_port, cluster.operator_tls(certificate=False), token=token)
    for number in range(20):
        with pytest.raises(AdminRefused) as refused:
            user.call("POST", f"agents/lost-{number}/revoke", {})  # that of each is refused, and told of as one
        assert refused.value.status == 403
        with pytest.raises(AdminRefused) as refused:
            admin.ask("POST", f"agents/lost-{number}/revoke", {})
        assert refused.value.status == 404
    for marker in ("0", "1", None):  # what was done is told of one by one
        admin.ask("PUT", f"agents/{BOX}/labels", {"labels": {"marker": marker}})
    records(cluster, "admin", action="label_agent", agent=BOX, labels={})
    assert len(records(cluster, "admin", action="label_agent", agent=BOX, done=True)) == 3
    for who in ("unbound", f"uid:{os.getuid()}"):
        told = records(cluster, "admin", action="revoke_agent", who=who, done=False)
        assert len(told) <= 3, told  # one at once, and one for each ten seconds
        assert told[0]["count"] == 1


def test_a_credential_makes_none_that_may_more_or_lasts_longer(up: Tunnel, admin: Checked) -> None:
    cluster = up.cluster
    config = load_server_config(cluster.config)
    csr = base64.b64encode(request_for(new_key())).decode()
    tls = cluster.operator_tls(certificate=False)

    def with_token(scope: Scope) -> Checked:
        text = create_user_token(config, "dialer", timedelta(hours=1), scope=scope)
        return Checked(tls_client(cluster.fleet_port, tls, text))

    narrow = with_token(Scope(frontends=frozenset({"fleet"})))
    assert narrow.ask("PUT", "log-level", {"level": "info"}) == {"level": "info"}
    for path, body in (
        ("user-tokens", {"user": "ann"}),
        ("certificates", {"user": "ann", "csr": csr}),
        ("join-tokens", {"agent": "box-9"}),
    ):
        with pytest.raises(AdminRefused) as refused:
            narrow.ask("POST", path, body)
        assert (refused.value.status, refused.value.code) == (403, "LL2044"), path
    whole = with_token(UNLIMITED)
    until = whole.get("whoami")["until"]
    year_s = 365 * 86400
    admin.ask("POST", "users", {"name": "heir"})
    for path, more in (("user-tokens", {}), ("certificates", {"csr": csr})):
        assert whole.ask("POST", path, {"user": "dialer", "expires_s": year_s, **more})["until"] <= until, path
        assert whole.ask("POST", path, {"user": "heir", "expires_s": year_s, **more})["until"] > until, path


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_the_socket_is_for_the_daemons_own_user(up: Tunnel) -> None:
    path = up.cluster.config.parent / "admin.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    up.cluster.folder.chmod(0o755)
    path.parent.chmod(0o755)
    path.chmod(0o666)  # what somebody may do: it is the kernel's word that counts
    ids = pwd.getpwnam(NOBODY)
    script = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
        "s.sendall(b'GET /longline/v1/status HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'); print(s.makefile().read())"
    )
    python = shutil.which("python3", path="/usr/bin:/bin") or "python3"
    done = subprocess.run(
        [python, "-c", script, str(path)], capture_output=True, text=True, timeout=30, cwd="/",
        user=ids.pw_uid, group=ids.pw_gid,
    )  # fmt: skip
    path.chmod(0o600)
    path.parent.chmod(0o700)
    assert "403" in done.stdout, done
    assert "may not command this daemon" in done.stdout


def test_the_operators_command_shows_it(up: Tunnel) -> None:
    socket = ["--socket", str(up.cluster.config.parent / "admin.sock")]
    told = command_result("longline", "status", *socket)
    assert (told.returncode, "1 of " in told.stdout) == (0, True), told
    assert BOX in run_command("longline", "agents", *socket)
    assert "joined" in run_command("longline", "events", *socket)
    assert "uid:" in run_command("longline", "whoami", *socket)


def test_a_close_name_is_suggested(admin: Checked) -> None:
    with pytest.raises(AdminRefused, match="did you mean box-7") as refused:
        admin.get("agents/bx-7")
    assert (refused.value.status, refused.value.code) == (404, "LL4001")


def test_what_happened_is_told_from_a_join_to_a_revocation(up: Tunnel, admin: Checked) -> None:
    """The life of a box, followed as it happens."""
    cluster = up.cluster
    good = cluster.config.read_text()
    with admin.lines(f"events?follow=1&since={admin.get('events')['events'][-1]['seq']}") as lines:

        def until(kind: str, agent: str | None = OTHER) -> dict[str, Any]:
            line: dict[str, Any]
            for line in lines:
                check(line, schema_of("GET", "events", "application/x-ndjson"))
                if (line["kind"], line["agent"]) == (kind, agent):
                    return line
            raise AssertionError(f"the events ended before {kind}")

        box = cluster.join(OTHER)
        joined = until("joined")
        cluster.start_box(OTHER)
        assert "first time" in until("back")["text"]
        box.agent.kill()
        away, agent = until("away"), away_now(admin, OTHER)
        assert (agent["reason"], agent["address"][:10]) == (away["text"], "127.0.0.1:")
        cluster.start_box(OTHER)
        assert "is back" in until("back")["text"]
        cluster.configure({"drain_s": 11.0})
        assert "drain_s: 30.0 -> 11.0" in until("config", None)["text"]
        cluster.config.write_text("rubbish")
        assert "cannot be used" in until("config", None)["text"]
        cluster.config.write_text(good)
        assert "drain_s: 11.0 -> 30.0" in until("config", None)["text"]
        assert admin.ask("POST", f"agents/{OTHER}/revoke", {"reason": "stolen"})["state"] == "revoked"
        assert "revoked" in until("revoked")["text"]
        last = until("refused")
        assert "LL2015" in last["text"]
    assert admin.get(f"events?since={last['seq'] - 1}&limit=5")["events"][0] == last
    assert joined in admin.get("events")["events"]
    box.agent.kill()


def away_now(admin: Checked, name: str) -> dict[str, Any]:
    wait_until(lambda: admin.get(f"agents/{name}")["state"] == "away", "the box is away")
    return dict(admin.get(f"agents/{name}"))


def test_lists_over_a_restart(up: Tunnel, admin: Checked) -> None:
    """Runs behind all others: it ends the server and the box of this file."""
    cluster = up.cluster
    up.box.agent.kill()
    before = away_now(admin, BOX)
    last = admin.get("events")["events"][-1]["seq"]
    cluster.server.stop()
    cluster.start()
    after = {agent["name"]: agent for agent in admin.get("agents")["agents"]}
    assert (after[BOX]["state"], after[BOX]["reason"]) == ("away", before["reason"])
    assert after[BOX]["last_seen"][:19] == before["last_seen"][:19]
    assert (after[BOX]["address"], after[BOX]["version"]) == (before["address"], before["version"])
    assert (after[OTHER]["state"], after[OTHER]["reason"]) == ("revoked", "stolen")
    assert (after["box-9"]["state"], after["box-9"]["since"]) == ("never_came", after["box-9"]["joined"])
    with admin.lines(f"events?follow=1&since={last}") as lines:
        lost = next(lines)
    assert (lost["kind"], "started anew" in lost["text"], lost["seq"] > last) == ("lost", True, True)
    assert admin.ask("POST", "agents/box-9/forget")["name"] == "box-9"


def test_each_route_was_held_to_the_document() -> None:
    described = {
        (method.upper(), path.removeprefix("/longline/v1/"))
        for path, methods in DOCUMENT["paths"].items()
        for method in methods
    }
    assert described - Checked.asked == {("POST", "reload")}, "test_reload.py asks for that"
