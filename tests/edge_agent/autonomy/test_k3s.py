"""The kubelet of a K3s agent is led through the proxy by a copy of its kubeconfig, which K3s does not write over.

The folders are laid out as K3s does it; no K3s runs here.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from edge_agent.autonomy.k3s import K3sAgent, disable, enable
from edge_agent.autonomy.switching import NotSwitched, server_of

URL, AUTHORITY = "https://127.0.0.1:6440", Path("/var/lib/edge-agent/api-proxy.crt")
DIRECT = "https://127.0.0.1:6444"


@pytest.fixture
def agent(tmp_path: Path) -> K3sAgent:
    """As `k3s agent` leaves it (k3s v1.34 `pkg/daemons/control/deps`): its load balancer is where it leads."""
    made = K3sAgent(tmp_path / "agent", tmp_path / "etc" / "config.yaml.d")
    made.data.mkdir()
    start(made)
    return made


def start(agent: K3sAgent) -> None:
    """What K3s does at each start."""
    data = agent.data
    agent.kubeconfig.write_text(
        "apiVersion: v1\nclusters:\n- cluster:\n"
        f"    server: {DIRECT}\n    certificate-authority: {data}/server-ca.crt\n  name: local\n"
        "contexts:\n- context:\n    cluster: local\n    namespace: default\n    user: user\n  name: Default\n"
        "current-context: Default\nkind: Config\npreferences: {}\nusers:\n- name: user\n  user:\n"
        f"    client-certificate: {data}/client-kubelet.crt\n    client-key: {data}/client-kubelet.key\n"
    )
    agent.kubeconfig.chmod(0o600)


def kubelet_args(agent: K3sAgent) -> list[str]:
    """What K3s adds to its kubelet's arguments, of the files beside its configuration."""
    files = sorted(agent.configuration.glob("*.yaml")) if agent.configuration.exists() else []
    return [word for file in files for word in yaml.safe_load(file.read_text())["kubelet-arg+"]]


def test_it_stays_led_through_the_proxy_over_a_restart(agent: K3sAgent) -> None:
    before = agent.kubeconfig.read_bytes()
    assert enable(agent, URL, AUTHORITY) == DIRECT
    start(agent)
    assert agent.kubeconfig.read_bytes() == before, "it is K3s' own"
    assert kubelet_args(agent) == [f"kubeconfig={agent.copy}"]
    copy = yaml.safe_load(agent.copy.read_text())
    assert copy["clusters"][0]["cluster"] == {"server": URL, "certificate-authority": str(AUTHORITY)}
    assert copy["users"] == yaml.safe_load(before)["users"]
    assert agent.copy.stat().st_mode & 0o777 == 0o600
    assert enable(agent, URL, AUTHORITY) is None


def test_all_is_as_it_was_afterwards(agent: K3sAgent) -> None:
    assert disable(agent) is None
    enable(agent, URL, AUTHORITY)
    assert disable(agent) == DIRECT
    assert kubelet_args(agent) == []
    assert [path.name for path in agent.data.iterdir()] == [agent.kubeconfig.name]


def test_what_the_operator_has_changed_stays(agent: K3sAgent) -> None:
    enable(agent, URL, AUTHORITY)
    agent.settings.write_text(agent.settings.read_text() + '  - "v=4"\n')
    with pytest.raises(NotSwitched, match="changed since"):
        disable(agent)
    assert agent.copy.exists()
    agent.kubeconfig.write_text("{}")
    for switch in (disable, lambda one: enable(one, URL, AUTHORITY)):
        with pytest.raises(NotSwitched, match="cannot be used: 0 lines"):
            switch(agent)
    assert server_of(agent.copy.read_text()) == URL
