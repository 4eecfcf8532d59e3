"""A site's own API server through the tunnel: a stock kubectl, `proxy-url`, and TLS that nobody in between can end.

The API server here is a second cloud server's, on the box; tests/e2e has a real one.
"""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cluster import Cluster, cluster
from tests.support.kubectl_user import KubectlUser
from tests.support.ports import free_ports
from tests.support.processes import command_result
from tests.support.relay_process import RelayProcess
from tests.support.tunnel import wait_until

SITE = "site-a"
ADDRESS = "127.0.0.2"
"""Of the site's server; the cloud's certificate has not got it."""


@dataclass(kw_only=True)
class User(KubectlUser):
    """Somebody with a kubeconfig for the site."""

    kubeconfig: Path
    folder: Path

    def edited(self, name: str, **cluster: str) -> User:
        """The same with other entries of its cluster."""
        config = yaml.safe_load(self.kubeconfig.read_text())
        config["clusters"][0]["cluster"].update(cluster)
        path = self.folder / name
        path.write_text(yaml.safe_dump(config))
        return User(kubeconfig=path, folder=self.folder)

    @property
    def entry(self) -> dict[str, Any]:
        """Its cluster."""
        found: dict[str, Any] = yaml.safe_load(self.kubeconfig.read_text())["clusters"][0]["cluster"]
        return found


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Cluster, Cluster]]:
    """The cloud's, and the site's own."""
    with cluster() as cloud, cluster(hosts=[ADDRESS]) as own:
        own.configure({"fleet": {"listen": f"{ADDRESS}:{own.fleet_port}"}})
        own.start()
        config = own.kubeconfig("site-admin")
        cloud.configure(
            {
                "connect": {"listen_kubectl": f"127.0.0.1:{free_ports(1)[0]}"},
                "cluster": [{"name": "paris", "kubeconfig": str(config), "agent": SITE}],
            }
        )
        cloud.start()
        cloud.join(SITE, allow=[f"{ADDRESS}:{own.fleet_port}"])
        cloud.start_box(SITE)
        yield cloud, own


@pytest.fixture(scope="module")
def user(servers: tuple[Cluster, Cluster]) -> User:
    cloud, _ = servers
    path = cloud.folder / "paris.kubeconfig"
    cloud.typed("user", "add", "ann")
    path.write_text(cloud.typed("user", "kubeconfig", "ann", "--cluster", "paris"))
    made = User(kubeconfig=path, folder=cloud.folder)
    # A running server looks for new tokens once a second.
    wait_until(lambda: made.run_kubectl("get", "nodes").returncode == 0, "the token is known")
    return made


def test_kubectl_reaches_the_sites_own_server(servers: tuple[Cluster, Cluster], user: User) -> None:
    cloud, own = servers
    assert user.entry["server"] == f"https://{ADDRESS}:{own.fleet_port}"
    who = json.loads(user.kubectl("auth", "whoami", "-o", "json"))
    assert who["status"]["userInfo"]["username"] == "site-admin"
    assert "No resources found" in user.run_kubectl("get", "nodes").stderr.decode()
    # The cloud's own record has the person behind the token.
    wait_until(lambda: '"who":"ann"' in cloud.server.log.read_text(), "the record is written")


def test_without_the_proxys_certificate_it_is_not_trusted(servers: tuple[Cluster, Cluster], user: User) -> None:
    _, own = servers
    only_site = yaml.safe_load((own.folder / "site-admin.kubeconfig").read_text())["clusters"][0]["cluster"]
    refused = user.edited("x", **{"certificate-authority-data": only_site["certificate-authority-data"]})
    assert b"certificate signed by unknown authority" in refused.run_kubectl("get", "nodes").stderr


def test_the_cloud_cannot_pass_for_the_site(servers: tuple[Cluster, Cluster], user: User) -> None:
    """The cloud's fleet API stands where the site's server should be, with the very certificate that is trusted."""
    cloud, _ = servers
    (port,) = free_ports(1)
    with RelayProcess(("127.0.0.1", cloud.fleet_port), listen=(ADDRESS, port)):
        cloud.boxes[SITE].configure({"allow": [{"target": f"{ADDRESS}:{port}"}]})
        cloud.boxes[SITE].agent.stop()
        cloud.start_box(SITE)
        elsewhere = {"server": f"https://{ADDRESS}:{port}"}
        assert b"LL2044" in user.edited("x", **elsewhere).run_kubectl("get", "nodes").stderr
        # Even for a token that is good for any address.
        host = user.entry["proxy-url"].rpartition("@")[2]
        elsewhere["proxy-url"] = f"https://{SITE}.longline:{cloud.user_token('ann')}@{host}"
        refused = user.edited("y", **elsewhere).run_kubectl("get", "nodes")
    assert refused.returncode == 1
    assert b"certificate is valid for 127.0.0.1, ::1, not 127.0.0.2" in refused.stderr
    authority = (cloud.config.parent / "ca.crt").read_bytes().strip()
    assert authority not in base64.b64decode(user.entry["certificate-authority-data"])


@pytest.mark.parametrize(("token", "says"), [("wrong", b"LL2040"), ("", b"LL2040")])
def test_a_wrong_token_is_refused(user: User, token: str, says: bytes) -> None:
    host = user.entry["proxy-url"].rpartition("@")[2]
    other = user.edited("z", **{"proxy-url": f"https://{SITE}.longline:{token}@{host}"})
    refused = other.run_kubectl("get", "nodes")
    assert refused.returncode == 1
    assert says in refused.stderr


def test_what_cannot_be_made_is_told(servers: tuple[Cluster, Cluster]) -> None:
    cloud, own = servers
    cases = [
        (cloud, "london", "no [[cluster]] of the name 'london'"),
        (own, "paris", "no [[cluster]] of the name 'paris'"),
    ]
    for made, name, says in cases:
        done: subprocess.CompletedProcess[str] = command_result(
            "cloud-server", "user", "kubeconfig", "ann", "--config", str(made.config), "--cluster", name
        )
        assert done.returncode == 1
        assert says in done.stderr
        assert not done.stdout
