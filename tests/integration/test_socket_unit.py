"""The API proxy of a node behind a socket unit: its port is there before the agent and while that starts anew."""

from __future__ import annotations

import http.client
import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.cluster import edit_toml
from tests.support.pki import Authority
from tests.support.ports import free_ports
from tests.support.service_manager import ServiceManager
from tests.support.tunnel import wait_until
from tests.support.waits import scaled_s

ADDRESS, FOR_PODS = "127.0.0.1", "127.0.0.2"


@dataclass(kw_only=True)
class Site:
    """A box whose cloud and API server are away, and a socket unit for its proxy."""

    folder: Path
    manager: ServiceManager
    port: int
    port_for_pods: int
    refused: list[str] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.folder / "edge-agent.toml"

    def get(self, address: str = ADDRESS, port: int = 0) -> int:
        """The status that the proxy answers with. Its certificate must be the one on the disk, and name the address."""
        context = ssl.create_default_context(cafile=str(self.folder / "api-proxy.crt"))
        connection = http.client.HTTPSConnection(address, port or self.port, context=context, timeout=scaled_s(20))
        try:
            connection.request("GET", "/version")
            return connection.getresponse().status
        finally:
            connection.close()

    def ask_again_and_again(self, done: threading.Event) -> None:
        """What a component does: one connection after the other, none of which may be refused or broken."""
        while not done.is_set():
            try:
                status = self.get()
            except OSError as error:
                self.refused.append(repr(error))
                return
            if status != 503:
                self.refused.append(str(status))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    authority = Authority()
    authority.issue(uris=["spiffe://longline/agent/box-7"]).write(tmp_path, "agent")
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    authority.issue(common_name="system:node:box-7", organization="system:nodes").write(tmp_path, "kubelet")
    away, port_for_pods = free_ports(2)
    with socket.create_server((ADDRESS, 0)) as listening:
        port = listening.getsockname()[1]
        config = tmp_path / "edge-agent.toml"
        config.write_text(f'[cloud]\nservers = ["127.0.0.1:{away}"]\nproxy = "none"\n')
        edit_toml(config, {
            "autonomy": {
                "listen": [f"{ADDRESS}:{port}", f"{FOR_PODS}:{port_for_pods}"], "server": f"127.0.0.1:{away}",
                "ca": "ca.crt", "client_cert": "kubelet.crt", "client_key": "kubelet.key",
            }
        })  # fmt: skip
        with ServiceManager(["edge-agent", "run", "--config", str(config)], tmp_path / "agent.log") as manager:
            manager.store.append(("autonomy", os.dup(listening.fileno())))
            yield Site(folder=tmp_path, manager=manager, port=port, port_for_pods=port_for_pods)


def test_who_comes_before_the_agent_is_served(site: Site) -> None:
    with socket.create_connection((ADDRESS, site.port), scaled_s(20)) as early:
        site.manager.start()
        context = ssl.create_default_context(cafile=str(site.folder / "api-proxy.crt"))
        with context.wrap_socket(early, server_hostname=ADDRESS) as secured:
            secured.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b""
            while more := secured.recv(65536):
                answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    assert "is not reached" in json.loads(body)["message"]
    assert site.get(FOR_PODS, site.port_for_pods) == 503, "what the unit does not have is opened"


def test_nobody_is_refused_while_the_agent_starts_anew(site: Site) -> None:
    site.manager.start()
    done = threading.Event()
    asking = [threading.Thread(target=site.ask_again_and_again, args=(done,)) for _ in range(2)]
    for one in asking:
        one.start()
    try:
        site.manager.restart()
        edit_toml(site.config, {"autonomy": {"max_parts": 900}})  # another section is another proxy
        changed = "autonomy.max_parts"
        wait_until(lambda: changed in site.manager.log.read_text(), "the agent follows its file", 20)
        assert site.get() == 503
    finally:
        done.set()
        for one in asking:
            one.join()
    assert site.refused == []


def test_an_address_that_is_not_there_takes_the_other_ones_from_nobody(site: Site) -> None:
    edit_toml(site.config, {"autonomy": {"listen": [f"{ADDRESS}:{site.port}", f"192.0.2.77:{site.port}"]}})
    site.manager.start()
    assert site.get() == 503
    wait_until(lambda: '"part":"autonomy 192.0.2.77:' in site.manager.log.read_text(), "it is said to be down", 10)


def test_a_socket_that_nobody_asks_for_is_told(site: Site) -> None:
    (other,) = free_ports(1)
    edit_toml(site.config, {"autonomy": {"listen": f"{ADDRESS}:{other}"}})
    site.manager.start()
    assert site.get(port=other) == 503
    log = site.manager.log.read_text()
    assert f"autonomy has no address {ADDRESS}:{site.port}" in log
