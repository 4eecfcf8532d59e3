"""The kubeconfigs of components, before and after they are led through the proxy."""

from __future__ import annotations

from pathlib import Path

from edge_agent.autonomy import k3s, switching
from edge_agent.autonomy.check.components import components, k3s_agent
from edge_agent.autonomy.k3s import K3sAgent
from tests.support.pki import Authority

URL, PROXY = "https://127.0.0.1:6440", Path("/var/lib/edge-agent/api-proxy.crt")
AUTHORITY = Authority()


def kubeconfig(path: Path, user: str) -> Path:
    path.write_text(f"clusters:\n- cluster:\n    server: https://10.0.0.1:6443\nusers:\n- user:\n    {user}\n")
    return path


def test_where_they_lead_and_whose_they_are(tmp_path: Path) -> None:
    own, _ = AUTHORITY.issue(common_name="system:node:node-7").write(tmp_path, "kubelet")
    other, _ = AUTHORITY.issue(common_name="system:kube-proxy").write(tmp_path, "kube-proxy")
    kubelet = kubeconfig(tmp_path / "kubelet.conf", f"client-certificate: {own}")
    proxy = kubeconfig(tmp_path / "proxy.conf", f"client-certificate: {other}")
    odd = tmp_path / "odd.conf"
    odd.write_text("{}")

    def levels() -> list[str]:
        return [one.level for one in components([kubelet, proxy, odd, tmp_path / "none"], URL, own)]

    assert levels() == ["good", "warning", "warning", "fault"]
    switching.enable(proxy, URL, PROXY)
    switching.enable(kubelet, URL, PROXY)
    assert levels() == ["good", "fault", "warning", "fault"], "the proxy answers kube-proxy's certificate with 403"
    (finding,) = components([kubelet], URL, own)
    assert "leads through the proxy" in finding.text


def test_of_k3s_it_is_said_what_it_needs_to_start(tmp_path: Path) -> None:
    agent = K3sAgent(tmp_path, tmp_path / "config.yaml.d")
    kubeconfig(agent.kubeconfig, "token: x")
    (where, lack) = k3s_agent(agent, URL)
    assert "leads past the proxy" in where.text
    assert (lack.level, "asks its server when it starts" in lack.text) == ("warning", True)
    k3s.enable(agent, URL, PROXY)
    (where, _) = k3s_agent(agent, URL)
    assert "leads through the proxy" in where.text
