"""What a user of the fleet API may do by the policy: over real TLS, to boxes with kubelets of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud_server.opens.policy import DoorPolicy
from tests.support.fleet import FakeRegistry, box, pod_list, running_fleet
from tests.support.fleet_client import ask
from tests.support.policies import rights_of
from tunnel.aio.sockets.duplex import Duplex
from tunnel.aio.sockets.http1 import ServerConnection

pytestmark = pytest.mark.timeout(30)
PODS = "/api/v1/namespaces/default/pods"


async def kubelet(duplex: Duplex) -> None:
    """Lists a pod, and says its path to any other request."""
    http = ServerConnection(duplex)
    request = await http.next_request()
    assert request is not None
    body = pod_list("box-7", "host", "nginx.service") if request.target == "/pods" else request.target.encode()
    await http.respond(200, (), body)
    await duplex.aclose()


OPERATOR = """
[[role]]
name = "operator"
[[role.allow]]
verbs = ["get", "logs", "exec", "observe"]
[[binding]]
role = "operator"
users = ["ann"]
"""
OPERATORS = rights_of(OPERATOR)
ADMINISTERING = rights_of(OPERATOR.replace('"observe"', '"observe", "administer"'))


async def test_only_an_administrator_reads_recordings(tmp_path: Path) -> None:
    policy = DoorPolicy(OPERATORS)
    async with running_fleet(tmp_path, FakeRegistry(box("box-7")), {"box-7": kubelet}, policy) as fleet:
        code, refused = await ask(fleet, f"{PODS}/box-7/recordings")
        assert (code, refused["reason"]) == (403, "Forbidden")
        policy.rights = ADMINISTERING
        code, told = await ask(fleet, f"{PODS}/box-7/recordings")
        assert (code, told) == (200, "/recordings/default/box-7")
