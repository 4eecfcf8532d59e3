"""A target that the box gives a name: reached by it, and still under the box's own rules."""

from __future__ import annotations

import pytest

from tests.support.cluster import cluster
from tests.support.connect_client import ConnectRefused
from tests.support.targets import Target
from tests.support.tunnel import exchange


def test_a_target_by_its_name() -> None:
    with cluster() as made, Target("echo") as target:
        made.start()
        box = made.join("box-7")
        box.configure({"allow": [{"target": f"127.0.0.1:{target.port}", "service": "echo"}]})
        made.start_box("box-7")
        with made.dial("box-7:echo") as sock:
            assert exchange(sock) == b"ping"
        for name, says in (("printer", "offers no printer"), ("kubelet", "fleet API")):
            with pytest.raises(ConnectRefused, match=says):
                made.dial(f"box-7:{name}")
