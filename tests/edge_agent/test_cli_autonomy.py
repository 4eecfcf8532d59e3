"""`edge-agent autonomy`, as it is typed: output, errors and exit codes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edge_agent import cli_autonomy
from edge_agent.autonomy import switching
from edge_agent.autonomy.k3s import K3sAgent
from edge_agent.cli import cli
from tests.support.pki import Authority
from tests.support.ports import free_ports
from tunnel.aio.process.config import ConfigError

AUTHORITY = Authority()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A node whose API server is away, and that has no agent."""
    away, port = free_ports(2)
    (tmp_path / "ca.crt").write_bytes(AUTHORITY.pem)
    AUTHORITY.issue(common_name="system:node:node-7", organization="system:nodes").write(tmp_path, "kubelet")
    path = tmp_path / "edge-agent.toml"
    path.write_text(
        f'[cloud]\nservers = ["a:1"]\n[[listen]]\nlisten = "127.0.0.1:{away}"\ntarget = "10.0.0.1:6443"\n'
        f'[autonomy]\nlisten = "127.0.0.1:{port}"\nserver = "127.0.0.1:{away}"\n'
        'ca = "ca.crt"\nclient_cert = "kubelet.crt"\nclient_key = "kubelet.key"\n'
    )
    return path


def typed(config: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["autonomy", *words, "--config", str(config)])


def test_a_check_names_all_that_is_found(config: Path) -> None:
    kubeconfig = config.with_name("kubelet.conf")
    kubeconfig.write_text("clusters:\n- cluster:\n    server: https://a:1\n")
    done = typed(config, "check", "--kubeconfig", str(kubeconfig))
    assert done.exit_code == 1
    assert (
        "Error [LL1091]: API server: no way to 10.0.0.1:6443 through the tunnel ([[listen]] 127.0.0.1:" in done.stderr
    )
    assert "address: 127.0.0.1:" in done.stdout
    assert f"component: {kubeconfig} leads to https://a:1" in done.stdout
    assert "can be led through the agent" not in done.stdout
    answer = typed(config, "check", "--kubeconfig", str(kubeconfig), "-o", "json")
    found = json.loads(answer.stdout)
    assert (answer.exit_code, found["ready"]) == (1, False)
    assert {"credentials", "address", "API server", "component"} <= {one["about"] for one in found["findings"]}


def test_there_must_be_a_section(config: Path) -> None:
    config.write_text('[cloud]\nservers = ["a:1"]\n')
    done = typed(config, "check")
    assert (done.exit_code, "has no [autonomy]" in done.stderr) == (1, True)
    config.write_text('[cloud]\nservers = ["a:1"]\n[autonomy]\nserver = "a:1"\n')
    assert isinstance(typed(config, "check").exception, ConfigError)


def test_a_status_needs_an_agent(config: Path) -> None:
    done = typed(config, "status")
    assert (done.exit_code, done.stdout) == (2, "")


def test_another_components_certificate_is_not_led_to_who_refuses_it(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_autonomy, "_answering", lambda settings, _authority: f"https://{settings.addresses[0]}")
    certificate, _ = AUTHORITY.issue(common_name="system:kube-proxy").write(config.parent, "kube-proxy")
    kubeconfig = config.with_name("kube-proxy.conf")
    text = f"clusters:\n- cluster:\n    server: https://a:1\nusers:\n- user:\n    client-certificate: {certificate}\n"
    kubeconfig.write_text(text)
    done = typed(config, "enable", "--kubeconfig", str(kubeconfig))
    assert (done.exit_code, kubeconfig.read_text()) == (1, text)
    assert "CN=system:kube-proxy" in done.stderr


def test_a_k3s_agent_is_found_by_its_files(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    agent = K3sAgent(tmp_path / "agent", tmp_path / "config.yaml.d")
    monkeypatch.setattr("edge_agent.autonomy.k3s.K3sAgent", lambda: agent)
    monkeypatch.setattr(switching, "USUAL", (tmp_path / "none",))
    monkeypatch.setattr(cli_autonomy, "_answering", lambda settings, _authority: f"https://{settings.addresses[0]}")
    assert f"there is no {tmp_path}/none" in typed(config, "enable").stderr
    agent.data.mkdir()
    agent.kubeconfig.write_text("clusters:\n- cluster:\n    server: https://127.0.0.1:6444\n")
    enabled = typed(config, "enable")
    assert (enabled.exit_code, "before: https://127.0.0.1:6444" in enabled.stdout) == (0, True)
    assert "systemctl restart k3s-agent" in enabled.stdout
    assert "waits for its server all the same" in enabled.stderr
    disabled = typed(config, "disable")
    assert f"{agent.kubeconfig} leads to https://127.0.0.1:6444 again" in disabled.stdout
    assert [path.name for path in agent.data.iterdir()] == [agent.kubeconfig.name]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another account")
def test_owner_and_group_stay(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli_autonomy, "_answering", lambda settings, _authority: f"https://{settings.addresses[0]}")
    kubeconfig = config.with_name("kubelet.conf")
    kubeconfig.write_text("clusters:\n- cluster:\n    server: https://a:1\n")
    os.chown(kubeconfig, 65534, 65533)
    kubeconfig.chmod(0o640)
    for word in ("enable", "disable"):
        assert typed(config, word, "--kubeconfig", str(kubeconfig)).exit_code == 0
        about = kubeconfig.stat()
        assert (about.st_uid, about.st_gid, about.st_mode & 0o777) == (65534, 65533, 0o640)
