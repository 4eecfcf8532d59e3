"""The box as Hello describes it."""

from __future__ import annotations

import ipaddress
import platform
from datetime import UTC, datetime
from pathlib import Path

import pytest

from edge_agent.link.box import describe


def test_what_the_kernel_says() -> None:
    node = describe({"site": "north"}, ["kubelet"])
    assert node.hostname == platform.node()
    assert node.kernel == platform.release()
    assert node.architecture in ("amd64", "arm64", "arm", "386") or node.architecture == platform.machine()
    assert node.cpus >= 1
    assert node.memory_bytes > 1 << 20
    assert 0 < node.boot_time_s <= datetime.now(UTC).timestamp()
    assert dict(node.labels) == {"site": "north"}
    assert list(node.services) == ["kubelet"]
    for address in node.addresses:
        ipaddress.ip_address(address)


def test_a_box_whose_names_are_no_utf8_can_still_say_hello(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    uname = platform.uname()
    monkeypatch.setattr(platform, "uname", lambda: uname._replace(node="b\udcffx"))
    release = tmp_path / "os-release"
    release.write_bytes(b'PRETTY_NAME="caf\xe9"\n')
    monkeypatch.setattr(platform, "_os_release_candidates", (str(release),))
    monkeypatch.setattr(platform, "_os_release_cache", None)
    node = describe({}, [])
    assert node.hostname == "b?x"
    assert node.os_image == platform.system()
    assert node.SerializeToString()
