"""Nobody finds a secret where people and programs look: logs, records, the process list, metrics, status, refusals."""

from __future__ import annotations

import base64
import json
import re
import urllib.request
from collections.abc import Iterator

import psutil
import pytest

from tests.support.agent_status import status_of
from tests.support.cluster import Cluster, cluster
from tests.support.connect_client import ConnectRefused, connect_through
from tests.support.policies import everybody_admin
from tests.support.ports import free_ports
from tests.support.processes import command_result, run_command
from tests.support.targets import Target
from tests.support.tunnel import BOX, exchange

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
USER = "ann"
PLANTED = "planted-pass-5f0c2a"
"""A password in the address of a proxy, which may be in a configuration."""


@pytest.fixture(scope="module")
def echo() -> Iterator[Target]:
    with Target("echo") as target:
        yield target


@pytest.fixture(scope="module")
def pages() -> tuple[str, str]:
    of_server, of_box = free_ports(2)
    return f"127.0.0.1:{of_server}", f"127.0.0.1:{of_box}"


@pytest.fixture(scope="module")
def made(echo: Target, pages: tuple[str, str]) -> Iterator[Cluster]:
    with cluster() as one:
        one.policy.write_text(everybody_admin(USER))
        one.configure({"metrics": {"listen": pages[0]}, "log": {"level": "debug"}})
        one.start()
        box = one.join(BOX, allow=[f"127.0.0.1:{echo.port}"])
        box.configure({"metrics": {"listen": pages[1]}, "log": {"level": "debug"}})
        one.start_box(BOX)
        yield one


def shown_to_connect(made: Cluster, header: str, port: int) -> str:
    """What a client is told that shows this; empty when it comes through."""
    try:
        with connect_through(
            ("127.0.0.1", made.connect_port),
            f"{BOX}:{port}",
            tls=made.operator_tls(certificate=False),
            headers=f"Proxy-Authorization: {header}\r\n",
        ) as sock:
            assert exchange(sock) == b"ping"
    except ConnectRefused as refused:
        return refused.reason
    return ""


def keys_of(pem: str) -> list[str]:
    """The lines of private keys, any of which would do to find it."""
    return [
        line for key in re.findall(r"PRIVATE KEY-----\n(.*?)\n-----END", pem, re.DOTALL) for line in key.split("\n")
    ]


def test_they_are_nowhere_that_one_looks(made: Cluster, pages: tuple[str, str], echo: Target) -> None:
    token, made_up = made.user_token(USER), "llu_" + "s3cr3tguess" * 4
    joined = (made.folder / f"{BOX}.token").read_text().strip()
    basic = base64.b64encode(f"{USER}:{token}".encode()).decode()
    assert not shown_to_connect(made, f"Bearer {token}", echo.port)
    told = [shown_to_connect(made, f"Bearer {made_up}", echo.port)]
    shown_to_connect(made, f"Basic {basic}", echo.port)
    seen = len(made.boxes[BOX].agent.log_text())
    made.boxes[BOX].configure({"cloud": {"proxy": f"http://user:{PLANTED}@127.0.0.1:9"}})
    made.boxes[BOX].agent.wait_for_log("configuration applied", after=seen)
    where = ["--server", made.tunnel_address, "--token-file", str(made.folder / f"{BOX}.token")]
    again = command_result("edge-agent", "join", *where, "--state", str(made.folder / "again"))
    assert again.returncode
    told += [again.stdout, again.stderr]
    assert all(told[:1] + told[-1:])

    state = made.config.parent
    processes = [psutil.Process(one.pid) for one in (made.server, made.boxes[BOX].agent)]
    processes += [child for one in processes for child in one.children(recursive=True)]
    places = {
        "the server's log and records": made.server.log_text(),
        "the agent's log and records": made.boxes[BOX].agent.log_text(),
        "command lines": "\n".join(" ".join(one.cmdline()) for one in processes),
        "the server's metrics": read(pages[0]),
        "the agent's metrics": read(pages[1]),
        "the server's status": run_command("longline", "status", "--socket", str(state / "admin.sock"), "-o", "json"),
        "the agent's status": json.dumps(status_of(made.boxes[BOX])[1]),
        "events": run_command("longline", "events", "--socket", str(state / "admin.sock")),
        "what clients were told": "\n".join(told),
        "the state": (state / "state.db").read_bytes().decode("latin-1"),
    }
    assert USER in places["the server's log and records"], "they were looked at where they were used"
    secrets = {
        "a user's token": [token],
        "a token in Basic": [basic],
        "a guess": [made_up],
        "a join token": [joined, joined[-20:]],
        "a proxy's password": [PLANTED],
        "a box's key": keys_of((made.boxes[BOX].state / "agent.key").read_text()),
        "the authority's key": keys_of((state / "ca.key").read_text()),
        "the server's key": keys_of((state / "server.key").read_text()),
    }
    assert all(secrets.values())
    found = [
        f"{name} in {place}"
        for name, words in secrets.items()
        for place, text in places.items()
        if any(word in text for word in words)
    ]
    assert found == []


def read(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        return str(answer.read().decode())
