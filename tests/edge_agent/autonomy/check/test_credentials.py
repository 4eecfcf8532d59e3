"""The kubelet's files: what is wrong with them, and who can read them."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest

from edge_agent.autonomy.check.credentials import READS_ALL, access, credentials, node_of
from edge_agent.autonomy.check.findings import Finding
from tests.support.pki import Authority

AUTHORITY = Authority()
DAY = dt.timedelta(days=1)


@pytest.fixture
def ca(tmp_path: Path) -> Path:
    path = tmp_path / "cluster-ca.crt"
    path.write_bytes(AUTHORITY.pem)
    return path


def found(folder: Path, ca: Path, name: str = "system:node:node-7", ends_in: dt.timedelta = 365 * DAY) -> list[Finding]:
    issued = AUTHORITY.issue(common_name=name, organization="system:nodes", ends_in=ends_in, starts_in=-DAY)
    return list(credentials(*issued.write(folder, "kubelet"), ca))


def test_good_files(tmp_path: Path, ca: Path) -> None:
    (finding,) = found(tmp_path, ca)
    assert finding.level == "good"
    assert "is good for 364 days" in finding.text or "is good for 365 days" in finding.text
    assert node_of(tmp_path / "kubelet.crt") == "node-7"
    assert node_of(ca) == node_of(tmp_path / "none") == ""


@pytest.mark.parametrize(("ends_in", "level", "text"), [
    (dt.timedelta(hours=1), "warning", "expires in"), (-DAY, "fault", "expired on"),
])  # fmt: skip
def test_one_that_ends(tmp_path: Path, ca: Path, ends_in: dt.timedelta, level: str, text: str) -> None:
    (finding,) = found(tmp_path, ca, ends_in=ends_in)
    assert finding.level == level
    assert text in finding.text


def test_what_does_not_fit(tmp_path: Path, ca: Path) -> None:
    (first, _) = found(tmp_path, ca, name="kubernetes-admin")
    assert (first.level, "which is no node" in first.text) == ("fault", True)
    other = tmp_path / "other-ca.crt"
    other.write_bytes(Authority("another CA").pem)
    (_, last) = found(tmp_path, other)
    assert (last.level, "does not have the authority that signed" in last.text) == ("fault", True)
    (tmp_path / "kubelet.key").write_bytes(AUTHORITY.issue().key_pem)
    (only,) = credentials(tmp_path / "kubelet.crt", tmp_path / "kubelet.key", ca)
    assert only.level == "fault"
    (only,) = credentials(tmp_path / "none.crt", tmp_path / "kubelet.key", ca)
    assert "cannot read" in only.text


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other accounts")
def test_who_can_read_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    state, key = tmp_path / "state", tmp_path / "kubelet.key"
    state.mkdir()
    key.touch()
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o711)

    def level(mode: int, owner: int = 0, group: int = 0) -> str:
        os.chown(key, owner, group)
        key.chmod(mode)
        (finding,) = access([key], state, [tmp_path / "edge-agent.service.d"])
        return finding.level

    assert level(0o600) == "good", "the agent is root"
    os.chown(state, 65534, 65534)
    assert level(0o600) == "fault"
    assert level(0o604) == "good"
    assert level(0o600, owner=65534) == "good"
    assert level(0o640, group=65534) == "good"
    assert level(0o044, owner=65534) == "fault", "the owner's permissions count for the owner"
    drop_ins = tmp_path / "edge-agent.service.d"
    drop_ins.mkdir()
    (drop_ins / "autonomy.conf").write_text(f"[Service]\nAmbientCapabilities={READS_ALL}\n")
    assert level(0o600) == "good"
    (finding,) = access([key], tmp_path / "none")
    assert "edge-agent join" in finding.remedy
