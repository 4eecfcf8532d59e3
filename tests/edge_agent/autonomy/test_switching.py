"""Kubeconfigs are led to the proxy and put back, byte for byte, or stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from edge_agent.autonomy.switching import BACKUP, NotSwitched, disable, enable, led_through, server_of

URL, AUTHORITY = "https://127.0.0.1:6440", Path("/var/lib/edge-agent/api-proxy.crt")
KUBEADM = """\
apiVersion: v1
clusters:
- cluster:
    certificate-authority-data: LS0tCg==
    server: https://10.0.0.1:6443
  name: default-cluster
contexts:
- context:
    cluster: default-cluster
    user: default-auth   # a comment that stays
  name: default-context
current-context: default-context
kind: Config
users:
- name: default-auth
  user:
    client-certificate: /var/lib/kubelet/pki/kubelet-client-current.pem
    client-key: /var/lib/kubelet/pki/kubelet-client-current.pem
"""
SERVER_FIRST = "clusters:\n- cluster: \n    server: 'https://a:1'\n    certificate-authority: /ca.crt\n"
NO_AUTHORITY = "clusters:\n  - cluster:\n      server: https://a:1\n    name: x\n"


@pytest.mark.parametrize("text", [KUBEADM, SERVER_FIRST, NO_AUTHORITY])
def test_two_lines_change(text: str) -> None:
    changed = led_through(text, URL, AUTHORITY)
    (cluster,) = yaml.safe_load(changed)["clusters"]
    assert cluster["cluster"] == {"server": URL, "certificate-authority": str(AUTHORITY)}
    before, after = yaml.safe_load(text), yaml.safe_load(changed)
    before["clusters"][0]["cluster"] = after["clusters"][0]["cluster"]
    assert before == after
    assert "a comment that stays" in changed or "comment" not in text


@pytest.mark.parametrize(("text", "reason"), [
    ("", "0 lines"), ("{clusters: [{cluster: {server: 'https://a'}}]}", "0 lines"), (KUBEADM * 2, "2 lines"),
    (KUBEADM.replace("    server", "    insecure-skip-tls-verify: true\n    server"), "insecure-skip-tls-verify"),
    (KUBEADM.replace("    server", "    proxy-url: http://p\n    server"), "proxy-url"),
])  # fmt: skip
def test_what_cannot_be_changed_stays(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "kubelet.conf"
    path.write_text(text)
    with pytest.raises(NotSwitched, match=reason):
        enable(path, URL, AUTHORITY)
    assert [one.name for one in tmp_path.iterdir()] == ["kubelet.conf"]
    assert path.read_text() == text


@pytest.mark.parametrize("text", [KUBEADM, SERVER_FIRST, NO_AUTHORITY])
def test_it_is_put_back_as_it_was(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubelet.conf"
    path.write_text(text)
    path.chmod(0o640)
    assert disable(path, URL) is None
    assert enable(path, URL, AUTHORITY) == server_of(text)
    assert enable(path, URL, AUTHORITY) is None, "it leads there already, and its backup stays that of before"
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.with_name(path.name + BACKUP).stat().st_mode & 0o777 == 0o640
    assert disable(path, URL) == server_of(text)
    assert path.read_text() == text
    assert path.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in tmp_path.iterdir()] == ["kubelet.conf"]


def test_one_that_was_changed_since_is_left_to_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "kubelet.conf"
    path.write_text(KUBEADM)
    enable(path, URL, AUTHORITY)
    path.write_text(path.read_text() + "extensions: []\n")
    with pytest.raises(NotSwitched, match="changed since"):
        disable(path, URL)
    path.with_name(path.name + BACKUP).unlink()
    with pytest.raises(NotSwitched, match="No such file"):
        disable(path, URL)


def test_a_backup_of_another_time_is_not_put_back(tmp_path: Path) -> None:
    path = tmp_path / "kubelet.conf"
    path.write_text(KUBEADM)
    enable(path, URL, AUTHORITY)
    newer = KUBEADM.replace("10.0.0.1", "10.0.0.2")  # the node was joined anew
    path.write_text(newer)
    assert enable(path, URL, AUTHORITY) == "https://10.0.0.2:6443"
    disable(path, URL)
    assert path.read_text() == newer


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotSwitched, match="No such file"):
        enable(tmp_path / "none", URL, AUTHORITY)
    (tmp_path / "odd").write_bytes(b"\xff")
    with pytest.raises(NotSwitched, match="cannot be changed"):
        enable(tmp_path / "odd", URL, AUTHORITY)
