"""`kubectl exec` with arguments of tens and hundreds of kilobytes: "Receive buffer too long", or a reset connection.

A command line travels in the head of a request. Kubernetes' own servers take heads of 1 MiB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from kubernetes import client as kubernetes_client
from kubernetes import config as kubernetes_config
from kubernetes.stream import stream

from tests.support.site import Site, site
from tests.support.tunnel import BOX

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
COUNT = 'n=0; for word; do n=$((n + ${#word})); done; echo "$# $n"'
ARGUMENT_LIMIT = 128 * 1024
"""Linux' MAX_ARG_STRLEN: no program can be given a longer argument."""


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site() as made:
        yield made


@pytest.mark.parametrize("length", [66_000, 100_000, ARGUMENT_LIMIT - 1])
def test_one_long_argument(here: Site, length: int) -> None:
    assert here.kubectl("exec", BOX, "--", "sh", "-c", COUNT, "sh", "x" * length) == f"1 {length}\n"
    record = here.box.agent.wait_for_log(COUNT[:12])
    assert "x" * 2000 not in record


def test_many_that_are_long_together(here: Site) -> None:
    words = ["y" * 100_000] * 9
    assert here.kubectl("exec", BOX, "--", "sh", "-c", COUNT, "sh", *words) == "9 900000\n"


def test_more_than_a_megabyte_is_refused_in_so_many_words(here: Site) -> None:
    words = ["z" * 125_000] * 12
    done = here.run_kubectl("exec", BOX, "--", "true", *words)
    assert done.returncode == 1
    assert b"the request's head is longer than 1048576 bytes" in done.stderr
    assert here.kubectl("exec", BOX, "--", "echo", "still here") == "still here\n"


@pytest.mark.parametrize("tty", [False, True])
def test_an_argument_that_no_program_can_be_given_is_an_error_of_the_command(here: Site, tty: bool) -> None:
    api = kubernetes_client.CoreV1Api(kubernetes_config.new_client_from_config(str(here.kubeconfig)))  # type: ignore[no-untyped-call]
    words = ["echo", "a" * (ARGUMENT_LIMIT + 20_000)]
    session = stream(
        api.connect_get_namespaced_pod_exec, BOX, "default", command=words, container="host",
        stdout=True, stderr=not tty, stdin=False, tty=tty, _preload_content=False,
    )  # fmt: skip
    session.run_forever(timeout=10)
    session.sock.shutdown()
    said = session.read_stdout() if tty else session.read_stderr()
    assert said.strip() == 'exec: "echo": argument list too long'
    assert session.returncode == 126


def test_a_long_query_by_http2(here: Site) -> None:
    nodes = json.loads(here.kubectl("get", "--raw", "/api/v1/nodes?labelSelector=&x=" + "q" * 120_000))
    assert [node["metadata"]["name"] for node in nodes["items"]] == [BOX]
