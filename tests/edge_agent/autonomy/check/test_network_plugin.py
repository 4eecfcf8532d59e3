"""Network plugins, by the configurations that they come with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from edge_agent.autonomy.check.network_plugin import network_plugin

LOCAL = {"type": "bridge", "ipam": {"type": "host-local", "ranges": []}}


def conflist(*plugins: dict[str, Any]) -> str:
    return json.dumps({"cniVersion": "1.0.0", "name": "net", "plugins": [*plugins, {"type": "portmap"}]})


@pytest.mark.parametrize(("content", "level", "text"), [
    (conflist(LOCAL), "good", "has bridge, host-local, portmap, which ask no API server"),
    (json.dumps(LOCAL), "good", "has bridge, host-local"),
    (conflist({"type": "calico", "ipam": {"type": "calico-ipam"}}), "warning", "Calico's IPAM takes each"),
    (conflist({"type": "calico", "ipam": {"type": "host-local"}}), "warning", "Calico asks the API server"),
    (conflist({"type": "cilium-cni"}), "warning", "Cilium's agent needs the API server to start"),
    (conflist({"type": "flannel", "delegate": {"isDefaultGateway": True}}), "warning", "/run/flannel/subnet.env"),
    (conflist({"type": "aws-cni"}), "warning", "has aws-cni, of which it is not known"),
    (conflist({"ipam": None}), "warning", "a plugin without a type"),
    ("{", "warning", "cannot be read"), ("[]", "warning", "cannot be read"), ('{"plugins": 3}', "warning", "cannot be"),
])  # fmt: skip
def test_what_is_said_of_a_plugin(tmp_path: Path, content: str, level: str, text: str) -> None:
    (tmp_path / "10-net.conflist").write_text(content)
    (tmp_path / "20-other.conf").write_text(json.dumps({"type": "other"}))
    (tmp_path / "00-ignored.txt").write_text("nothing")
    (finding,) = network_plugin([tmp_path / "none", tmp_path])
    assert finding.level == level
    assert text in finding.text


def test_none(tmp_path: Path) -> None:
    (finding,) = network_plugin([tmp_path])
    assert "no network plugin is configured" in finding.text
