"""Membership of a box whose agent is running: taken away, given anew, renewed; its connections follow."""

from __future__ import annotations

import datetime as dt
import shutil
from typing import Any

import psutil
import pytest

from cloud_server.trust import ca
from cloud_server.trust.ca import CertificateAuthority
from edge_agent.identity.identity import Identity
from tests.support.connect_client import ConnectRefused, ends_in_reset
from tests.support.enrolling import public_key_of
from tests.support.pki import Authority
from tests.support.processes import Daemon, run_command
from tests.support.tunnel import BOX, Tunnel, exchange, tunnel, wait_until
from tests.support.waits import scaled_s, sooner_than
from tunnel.aio.operate.admin_client import unix_client
from tunnel.aio.process.files import PUBLIC, write_atomic


def refused_status(made: Tunnel) -> int:
    """0 while connections still work."""
    try:
        made.connect("echo").close()
    except ConnectRefused as refused:
        return refused.status
    return 0


def rejoin(made: Tunnel) -> None:
    """With a new token, beside the running agent."""
    token = made.cluster.token(BOX)
    where = ["--server", made.link.address, "--token-file", str(token), "--state", str(made.box.state)]
    run_command("edge-agent", "join", *where)


def test_a_revoked_box_loses_its_connections_and_comes_back_with_a_new_token() -> None:
    with tunnel(["echo"]) as made, made.dial("echo") as sock:
        assert exchange(sock) == b"ping"
        endings = made.targets["echo"].endings
        run_command("cloud-server", "agent", "revoke", "--config", str(made.cluster.config), BOX)
        # The server looks five times a second; nobody waits until the link is given up, which takes fifteen.
        with sooner_than(10, "the end of its connections"):
            assert ends_in_reset(sock)
            wait_until(lambda: "ConnectionResetError" in endings, f"a reset at the target too, not {endings}")
        made.cluster.server.wait_for_log('"reason":"standing_lost"')
        assert refused_status(made) == 404
        made.box.agent.wait_for_log("was revoked")
        rejoin(made)
        # It was told to wait for a minute.
        wait_until(lambda: not refused_status(made), "the running agent uses its new identity", within_s=20)
        assert made.cluster.server.log_text().count('"agent refused"') == 1


@pytest.mark.e2e
def test_a_server_without_descriptors_takes_nobodys_name_away_and_sees_whose_is_taken() -> None:
    with tunnel(["echo"]) as made, made.dial("echo") as sock:
        assert exchange(sock) == b"ping"  # it is accepted
        process = psutil.Process(made.cluster.server.pid)
        before = process.rlimit(psutil.RLIMIT_NOFILE)
        process.rlimit(psutil.RLIMIT_NOFILE, (3, before[1]))  # none but those that are open
        try:
            for name in ("other", "another"):  # the server looks several times while each of these runs
                run_command("cloud-server", "token", "create", "--config", str(made.cluster.config), "--agent", name)
                assert exchange(sock) == b"ping"
            run_command("cloud-server", "agent", "revoke", "--config", str(made.cluster.config), BOX)
            assert ends_in_reset(sock)
        finally:
            process.rlimit(psutil.RLIMIT_NOFILE, before)
        assert "cannot be read" not in made.cluster.server.log_text()


@pytest.mark.e2e
def test_a_join_ends_what_the_earlier_key_holds_and_the_running_agent_goes_on_with_the_new_one() -> None:
    with tunnel(["echo"]) as made, made.dial("echo") as sock:
        assert exchange(sock) == b"ping"
        rejoin(made)
        assert ends_in_reset(sock)
        wait_until(lambda: not refused_status(made), "the running agent uses its new identity", within_s=30)


@pytest.mark.e2e
def test_a_renewal_drops_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    with tunnel(["echo"]) as made:
        identity = Identity(made.box.state)
        made.box.agent.stop()
        with monkeypatch.context() as patch:
            # It begins five minutes early, so that two thirds of it are over in some eight seconds.
            patch.setattr(ca, "AGENT_LIFE", dt.timedelta(minutes=7.7) - ca.CLOCK_SKEW)
            authority = CertificateAuthority.load(made.cluster.config.parent, "longline")
            due = authority.issue_agent(BOX, public_key_of(identity))
        write_atomic(identity.certificate_path, due, PUBLIC)
        made.restart_box()
        with made.dial("echo") as sock:
            assert exchange(sock) == b"ping"
            seen = len(made.box.agent.log_text())
            made.box.agent.wait_for_log("certificate renewed", 20, after=seen)
            made.box.agent.wait_for_log('"resumed":true', after=seen)
            assert exchange(sock) == b"ping"
        assert identity.certificate_path.read_bytes() != due
        assert identity.certificate().validity.not_after > dt.datetime.now(dt.UTC) + dt.timedelta(days=6)


@pytest.mark.e2e
def test_a_link_ends_with_its_certificate() -> None:
    own, life_s = Authority("own CA"), 8.0
    with tunnel(["echo"]) as made:
        use_own_authority(made, own, resume_window_s=2.0)
        box = own.issue(uris=[f"spiffe://example.org/agent/{BOX}"], ends_in=dt.timedelta(seconds=life_s))
        box.write(made.box.state, "agent")
        made.restart_box()
        with made.dial("echo") as sock:
            assert exchange(sock) == b"ping"
            made.box.agent.wait_for_log("has expired", life_s + 10)
            late_s = (dt.datetime.now(dt.UTC) - box.certificate.not_valid_after_utc).total_seconds()
            assert 0 <= late_s < scaled_s(5)
            assert refused_status(made) in (503, 504)
            assert ends_in_reset(sock)
        assert made.box.agent.running
        run_command("cloud-server", "agent", "forget", "--config", str(made.cluster.config), BOX)
        own.issue(uris=[f"spiffe://example.org/agent/{BOX}"]).write(made.box.state, "agent")
        wait_until(lambda: not refused_status(made), "the running agent uses its new certificate", within_s=30)


def use_own_authority(made: Tunnel, own: Authority, **settings: object) -> None:
    """Start the server with certificates of the user's own authority; the agent is left stopped, and trusts it."""
    made.box.agent.stop()
    made.cluster.server.stop()
    state = made.cluster.config.parent
    server = own.issue(uris=["spiffe://example.org/server"], hosts=["127.0.0.1"])
    certificate, key = server.write(state, "own-server")
    (state / "own-ca.crt").write_bytes(own.pem)
    tls = {"certificate": certificate.name, "key": key.name, "client_ca": "own-ca.crt"}
    made.cluster.configure({"tunnel": {"trust_domain": "example.org", **tls, **settings}})
    for path in state.glob("state.db*"):
        path.unlink()
    made.cluster.start()
    (made.box.state / "ca.crt").write_bytes(own.pem)


@pytest.mark.e2e
def test_with_ones_own_authority_there_are_no_tokens() -> None:
    own = Authority("own CA")
    with tunnel(["echo"]) as made:
        use_own_authority(made, own)
        own.issue(uris=[f"spiffe://example.org/agent/{BOX}"]).write(made.box.state, "agent")
        made.restart_box()
        assert refused_status(made) == 0

        made.box.agent.stop()
        own.issue(uris=[f"spiffe://example.org/agent/{BOX}"]).write(made.box.state, "agent")
        seen = len(made.box.agent.log_text())
        made.box.agent.start()
        made.box.agent.wait_for_log("belongs to another key", after=seen)
        run_command("cloud-server", "agent", "forget", "--config", str(made.cluster.config), BOX)
        made.box.agent.wait_ready()
        wait_until(lambda: not refused_status(made), "the new key has the name", within_s=30)


@pytest.mark.e2e
def test_a_copy_of_a_boxes_identity_is_in_the_list_with_the_reason_and_still_is_after_restarts() -> None:
    """The whole state folder, as an image that was copied to another machine has it."""
    with tunnel(["echo"]) as made:
        cluster, box = made.cluster, made.box
        copied = cluster.folder / "copy"
        shutil.copytree(box.state, copied, ignore=shutil.ignore_patterns("*.sock", "*.pid"))
        config = copied / "edge-agent.toml"
        config.write_text(config.read_text().replace(str(box.state), str(copied)))
        copy = Daemon("copy", ["edge-agent", "run", "--config", str(config)], cluster.folder / "copy.log")
        admin = unix_client(cluster.config.parent / "admin.sock")

        def listed() -> dict[str, Any]:
            (one,) = [one for one in admin.get("agents")["agents"] if one["name"] == BOX]
            return dict(one)

        def told_of_clone() -> list[dict[str, Any]]:
            return [fact for fact in listed()["facts"] if fact["code"] == "LL3016"]

        with copy:
            copy.start().wait_ready(30)  # it takes over
            wait_until(told_of_clone, "the box came back, and was turned away", 30)
            box.agent.wait_for_log("another process uses the identity")
            assert copy.running
            assert box.agent.running
            (clone,) = told_of_clone()
            assert listed()["state"] == "up"
            assert clone["text"].startswith("a second process with its identity was turned away, from 127.0.0.1:")
            (event,) = [one for one in admin.get("events")["events"] if one["kind"] == "replaced"]
            assert event["agent"] == BOX
            box.agent.kill()
        wait_until(lambda: listed()["state"] == "replaced", "none of the two is there")
        before = listed()
        assert (before["since"], before["facts"]) == (clone["since"], [clone])
        assert before["reason"] == f"another process uses its identity, {clone['text'].rpartition(', ')[2]}"
        cluster.server.stop()
        cluster.start()
        after = listed()
        for name in ("state", "since", "reason", "facts", "address", "last_seen"):
            assert after[name] == before[name], name
        command = run_command("cloud-server", "agent", "list", "--config", str(cluster.config))
        assert "a second process with its identity was turned away" in command
        shown = run_command("longline", "agents", BOX, "--socket", str(cluster.config.parent / "admin.sock"))
        assert "another process uses its identity" in shown
        made.restart_box()
        assert (listed()["state"], listed()["facts"]) == ("up", [clone]), "it is told for a day"
        box.agent.kill()
        wait_until(lambda: listed()["state"] == "away", "an end like any other")
