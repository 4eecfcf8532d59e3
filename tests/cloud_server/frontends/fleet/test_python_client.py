"""The official Python client: reads, a followed log and an exec."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from kubernetes import client, config, watch
from kubernetes.stream import stream

from tests.support.fleet import Fleet
from tunnel.kubeapi import watch as watch_module

pytestmark = pytest.mark.timeout(60)
T = TypeVar("T")


@contextmanager
def _core(kubeconfig: Path) -> Iterator[Any]:
    api_client = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
    try:
        yield client.CoreV1Api(api_client)
    finally:
        api_client.close()
        api_client.rest_client.pool_manager.clear()
        gc.collect()  # an ApiException holds its response, and that its socket, in a cycle


async def _call(fleet: Fleet, work: Callable[[Any], T]) -> T:
    """Run blocking client code in a thread."""

    def run() -> T:
        with _core(fleet.kubeconfig) as core:
            return work(core)

    return await asyncio.to_thread(run)


async def test_lists_and_watches(fleet: Fleet) -> None:
    def work(core: Any) -> tuple[list[str], list[str], list[str]]:
        nodes = [node.metadata.name for node in core.list_node(limit=1).items]
        pods = [pod.spec.node_name for pod in core.list_namespaced_pod("default", label_selector="").items]
        ready = [
            condition.status
            for node in core.list_node(label_selector="longline/site=south").items
            for condition in node.status.conditions
            if condition.type == "Ready"
        ]
        return nodes, pods, ready

    assert await _call(fleet, work) == (["box-7"], ["box-7", "box-8", "box-9"], ["Unknown"])


async def test_blanks_in_a_quiet_watch_are_no_events(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "QUIET_S", 0.05)

    def work(core: Any) -> list[Any]:
        watching = watch.Watch()  # type: ignore[no-untyped-call]
        return [event["type"] for event in watching.stream(core.list_node, timeout_seconds=1)]  # type: ignore[no-untyped-call]

    assert await _call(fleet, work) == ["ADDED"] * 3  # and neither an event nor an error for what came after


async def test_a_followed_log(fleet: Fleet, log_file: Path) -> None:
    def work(core: Any) -> list[bytes]:
        response = core.read_namespaced_pod_log(
            "box-7", "default", container="app.log", follow=True, tail_lines=1, _preload_content=False
        )
        lines = iter(response)
        first = next(lines)
        with log_file.open("a") as file:
            file.write("more\n")
        second = next(lines)
        response.close()
        response.release_conn()
        return [first, second]

    assert await _call(fleet, work) == [b"line 499\n", b"more\n"]


async def test_exec(fleet: Fleet) -> None:
    def work(core: Any) -> tuple[str, int]:
        shell = stream(
            core.connect_get_namespaced_pod_exec,
            "box-7",
            "default",
            command=["sh", "-c", "read line; echo got $line; exit 3"],
            stdin=True,
            stdout=True,
            stderr=True,
            tty=False,
            _preload_content=False,
        )
        shell.write_stdin("hello\n")
        shell.run_forever(timeout=20)
        out = shell.read_stdout()
        code = shell.returncode
        shell.sock.shutdown()
        return out, code

    assert await _call(fleet, work) == ("got hello\n", 3)


async def test_an_error_is_an_api_exception(fleet: Fleet) -> None:
    def work(core: Any) -> tuple[object, str]:
        with pytest.raises(client.ApiException) as caught:
            core.read_namespaced_pod_log("box-8", "default")
        return caught.value.status, str(caught.value.body)

    status, body = await _call(fleet, work)
    assert status == 503
    assert "agent box-8 is away" in body
