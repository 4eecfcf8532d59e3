"""Who may come in: tokens that work once, certificates of this cloud alone; whoever is refused is told why."""

from __future__ import annotations

import datetime as dt
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.support.cluster import Box, Cluster, cluster
from tests.support.pki import Authority
from tests.support.processes import command_result
from tests.support.tunnel import wait_until
from tunnel.aio.identity.join_token import JoinToken


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cluster]:
    with cluster() as made:
        made.start()
        yield made


def join(made: Cluster, token: Path, name: str) -> subprocess.CompletedProcess[str]:
    where = ["--server", made.tunnel_address, "--token-file", str(token), "--state", str(made.folder / name)]
    return command_result("edge-agent", "join", *where)


def refused_with(made: Cluster, box: Box, text: str, server_text: str = "") -> None:
    """The agent does not get in: both sides say why, and the agent goes on trying."""
    seen = len(made.server.log_text())
    box.agent.start()
    try:
        box.agent.wait_for_log(text, 15)
        if server_text:
            made.server.wait_for_log(server_text, 10, after=seen)
        assert box.agent.running
        assert "READY=1" not in box.agent.notify.states
    finally:
        box.agent.kill()


def test_a_token_works_once(cloud: Cluster) -> None:
    token = cloud.token("once")
    assert join(cloud, token, "once").returncode == 0
    again = join(cloud, token, "once-more")
    assert again.returncode == 1
    assert "used" in again.stderr
    assert "Traceback" not in again.stderr
    cloud.server.wait_for_log("used")
    assert not (cloud.folder / "once-more" / "edge-agent.toml").exists()


def test_a_token_expires(cloud: Cluster) -> None:
    token = cloud.token("late", "--expires", "1s")
    # The token has whole seconds, the server's own record is as much later as those leave out.
    end = JoinToken.decode(token.read_text()).expires + dt.timedelta(seconds=1)
    wait_until(lambda: dt.datetime.now(dt.UTC) > end, "the token's time is over")
    refused = join(cloud, token, "late")
    assert refused.returncode == 1
    assert "refused: the join token expired at 20" in refused.stderr
    assert not (cloud.folder / "late").exists()


@pytest.mark.parametrize("content", ["", "rubbish\n", "longline-join-1.AAAA\n", "longline-join-1.e30\n"])
def test_a_token_that_is_none(cloud: Cluster, content: str) -> None:
    token = cloud.folder / "bad.token"
    token.write_text(content)
    refused = join(cloud, token, "bad")
    assert refused.returncode in (1, 2)
    assert "token" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_token_of_another_cloud(cloud: Cluster) -> None:
    with cluster() as other:
        token = other.token("stranger")
        refused = join(cloud, token, "stranger")
    assert refused.returncode == 1
    assert "certificate" in refused.stderr.lower()


def test_a_box_of_another_cloud_is_refused(cloud: Cluster) -> None:
    with cluster() as other:
        other.start()
        box = other.join("box-7")
        box.configure({"cloud": {"servers": [cloud.tunnel_address]}})
        box.agent.start()
        box.agent.wait_for_log("certificate", 15)
        assert box.agent.running
        assert "READY=1" not in box.agent.notify.states


def test_a_box_whose_key_is_not_the_enrolled_one(cloud: Cluster) -> None:
    first = cloud.join("twin")
    state = cloud.folder / "twin-first"
    shutil.copytree(first.state, state)
    shutil.rmtree(first.state)
    cloud.join("twin")
    cloud.start_box("twin")
    stale = cloud.boxes["twin"]
    stale.agent.kill()
    shutil.rmtree(stale.state)
    shutil.copytree(state, stale.state)
    refused_with(cloud, stale, "another key", "another key")


def test_a_box_with_an_expired_certificate(cloud: Cluster) -> None:
    box = cloud.join("old")
    replace_certificate(box, ends_in=dt.timedelta(seconds=-60))
    refused_with(cloud, box, "expired")


def test_a_box_whose_certificate_is_of_a_foreign_authority(cloud: Cluster) -> None:
    box = cloud.join("foreign")
    replace_certificate(box, ends_in=dt.timedelta(days=1))
    refused_with(cloud, box, "certificate")


def replace_certificate(box: Box, ends_in: dt.timedelta) -> None:
    """Give the box a certificate that another authority made for the same name."""
    old, key = box.state / "agent.crt", box.state / "agent.key"
    names = x509.load_pem_x509_certificate(old.read_bytes()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    forged = Authority("foreign CA").issue(uris=uris, ends_in=ends_in)
    serialization.load_pem_private_key(forged.key_pem, None)
    old.write_bytes(forged.certificate_pem)
    key.write_bytes(forged.key_pem)
