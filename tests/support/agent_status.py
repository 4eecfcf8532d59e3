"""What a running agent says of itself, asked as its operator does."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from tests.support.cluster import Box, Cluster
from tests.support.kubeconfig_files import client_context
from tests.support.processes import command_result
from tests.support.tunnel import wait_until


def status_of(box: Box) -> tuple[int, dict[str, Any]]:
    """Exit code and answer of `edge-agent status -o json`; an empty answer where there is no agent."""
    done = command_result("edge-agent", "status", "--config", str(box.config), "-o", "json")
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


def node_of(cluster: Cluster, name: str) -> dict[str, Any]:
    """A box's node, as the fleet API shows it."""
    import http.client

    import yaml

    text = cluster.kubeconfig().read_text()
    context = client_context(yaml.safe_load(text))
    connection = http.client.HTTPSConnection("127.0.0.1", cluster.fleet_port, context=context, timeout=20)
    try:
        connection.request("GET", f"/api/v1/nodes/{name}")
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == 200, body
        return dict(json.loads(body))
    finally:
        connection.close()


def wait_for_node(cluster: Cluster, name: str, condition: Callable[[dict[str, Any]], object], what: str) -> None:
    """Poll until the node is as wanted."""
    wait_until(lambda: condition(node_of(cluster, name)), what, 20)


def box_fault(node: dict[str, Any]) -> dict[str, Any]:
    """The condition in which a box tells what only it knows; empty when it told nothing."""
    return next((one for one in node["status"]["conditions"] if one["type"] == "BoxFault"), {})
