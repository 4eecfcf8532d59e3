"""The official Python client of Kubernetes works as kubectl does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kubernetes import client, config
from kubernetes.stream import stream

from tests.support.site import Site
from tests.support.tunnel import BOX


@pytest.fixture
def api(shared: Site) -> Iterator[Any]:
    """Of any type: the client's own types are of another version than its code."""
    with config.new_client_from_config(str(shared.kubeconfig)) as made:  # type: ignore[no-untyped-call]
        yield client.CoreV1Api(made)
        made.rest_client.pool_manager.clear()  # it leaves its connections to the garbage collector


def test_lists(api: Any) -> None:
    assert [node.metadata.name for node in api.list_node().items] == [BOX]
    assert [pod.metadata.name for pod in api.list_namespaced_pod("default").items] == [BOX]


def test_exec(api: Any) -> None:
    command = ["sh", "-c", "read line; echo got $line; exit 5"]
    session = stream(
        api.connect_get_namespaced_pod_exec, BOX, "default", command=command, stdin=True, stdout=True, stderr=True,
        tty=False, _preload_content=False,
    )  # fmt: skip
    session.write_stdin("hello\n")
    session.run_forever(timeout=20)
    assert session.read_stdout() == "got hello\n"
    assert session.returncode == 5
    session.sock.shutdown()  # its own close leaves a socket open that the server has closed


def test_logs_follow(shared: Site, api: Any) -> None:
    lines = api.read_namespaced_pod_log(
        BOX, "default", container="app.log", follow=True, tail_lines=3, _preload_content=False
    )
    try:
        expected = "".join(shared.log.read_text().splitlines(keepends=True)[-3:]).encode()
        received = b""
        while len(received) < len(expected):
            received += lines.read(1)
        assert received == expected
    finally:
        lines.close()
