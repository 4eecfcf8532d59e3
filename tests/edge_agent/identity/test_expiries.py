from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from structlog.testing import capture_logs

from edge_agent.cli import cli
from edge_agent.identity.expiries import Ends, KubeletFiles, watched
from tests.support.pki import Authority
from tests.support.waits import eventually
from tunnel.aio.identity.validity import Watched

DAY = timedelta(days=1)
AUTHORITY = Authority()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    path = tmp_path / "edge-agent.toml"
    path.write_text("[cloud]\nservers = ['127.0.0.1:1']\n")
    AUTHORITY.issue(uris=["spiffe://longline/agent/box-7"], ends_in=7 * DAY).write(tmp_path, "agent")
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.pem)
    return tmp_path


def by_name(state: Path, kubelet: KubeletFiles | None = None) -> dict[str, Watched]:
    return {one.name: one for one in watched(state, kubelet)}


def test_what_a_join_made(state: Path, tmp_path: Path) -> None:
    found = by_name(state)
    assert found.keys() == {"agent", "ca"}
    assert str(tmp_path / "agent.crt") in found["agent"].what


def test_what_a_real_kubelet_needs(state: Path, tmp_path: Path) -> None:
    issued = AUTHORITY.issue(ends_in=3 * DAY)
    certificate, key = issued.write(tmp_path, "kubelet")
    found = by_name(state, KubeletFiles(certificate, key, tmp_path / "ca.crt"))
    assert found.keys() == {"agent", "ca", "kubelet.client_cert", "kubelet.ca"}
    assert found["kubelet.client_cert"].validity.not_after == issued.certificate.not_valid_after_utc


def test_what_the_kubelet_needs_at_its_api_server(state: Path, tmp_path: Path) -> None:
    issued = AUTHORITY.issue(ends_in=-DAY)
    certificate, key = issued.write(tmp_path, "kubelet")
    found = {one.name: one for one in watched(state, None, KubeletFiles(certificate, key, tmp_path / "ca.crt"))}
    assert found.keys() == {"agent", "ca", "autonomy.client_cert"}
    assert found["autonomy.client_cert"].validity.not_after == issued.certificate.not_valid_after_utc


def test_nothing_there_yet(state: Path, tmp_path: Path) -> None:
    for file in ("agent.crt", "ca.crt"):
        (tmp_path / file).write_text("rubbish")
    assert watched(state, None) == []


def test_check_fails_when_the_boxs_certificate_is_over(state: Path, tmp_path: Path) -> None:
    words = ["check", "--config", str(tmp_path / "edge-agent.toml")]
    good = CliRunner().invoke(cli, words)
    assert good.exit_code == 0
    assert "agent.crt is good for 6 days" in good.stdout
    AUTHORITY.issue(uris=["spiffe://longline/agent/box-7"], ends_in=-DAY).write(tmp_path, "agent")
    over = CliRunner().invoke(cli, words)
    assert over.exit_code == 1
    assert "agent.crt expired on" in over.stderr
    assert "edge-agent join with a new token" in over.stderr


async def test_the_log_says_what_keeps_failing_to_be_renewed(state: Path, tmp_path: Path) -> None:
    issued = AUTHORITY.issue(uris=["spiffe://longline/agent/box-7"], starts_in=-6.5 * DAY, ends_in=0.5 * DAY)
    await asyncio.to_thread(issued.write, tmp_path, "agent")
    with capture_logs() as logs:
        task = asyncio.get_running_loop().create_task(Ends(state, lambda: None, lambda: None).run())
        await eventually(lambda: [line for line in logs if line.get("certificate") == "agent"])
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert "expires in 11 hours" in next(line["reason"] for line in logs if line["certificate"] == "agent")
    assert [line["log_level"] for line in logs if line["certificate"] == "agent"] == ["error"]
