"""An end that comes near is seen wherever an operator looks: in the log, the status, on readyz, in the figures."""

from __future__ import annotations

import base64
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.clock import clock_of, needs_faketime
from tests.support.cluster import Box, Cluster, cluster
from tests.support.pki import Authority, Issued
from tests.support.ports import free_ports
from tests.support.processes import Daemon, run_command
from tests.support.tunnel import wait_until
from tests.support.waits import scaled_s
from tunnel.aio.operate.admin_client import unix_client

pytestmark = pytest.mark.e2e

DAY = timedelta(days=1)


@dataclass
class Cloud:
    cluster: Cluster
    metrics: int

    def page(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}{path}", timeout=scaled_s(10)) as answer:
            return str(answer.read().decode())

    def warnings(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = unix_client(self.cluster.config.parent / "admin.sock").get("status")["warnings"]
        return found

    def told(self, level: str) -> list[str]:
        """The reasons of the log's lines of a level."""
        lines = [json.loads(line) for line in self.cluster.server.log_text().splitlines() if line.startswith("{")]
        return [line.get("reason", "") for line in lines if line.get("level") == level]


def issue(own: Authority, uri: str, left: timedelta) -> Issued:
    return own.issue(uris=[uri], hosts=["127.0.0.1"], starts_in=left - 120 * DAY, ends_in=left)


def box_of(folder: Path, server: str, own: Authority, issued: Issued) -> Box:
    """A box with a certificate of the user's own authority."""
    folder.mkdir()
    issued.write(folder, "agent")
    (folder / "ca.crt").write_bytes(own.pem)
    config = folder / "edge-agent.toml"
    config.write_text(f'[cloud]\nservers = ["{server}"]\n')
    return Box(
        name="box-7",
        state=folder,
        agent=Daemon("box-7", ["edge-agent", "run", "--config", str(config)], folder.parent / "box-7.log"),
    )


def kubeconfig_of(path: Path, issued: Issued) -> None:
    user = {
        "client-certificate-data": base64.b64encode(issued.certificate_pem).decode(),
        "client-key-data": base64.b64encode(issued.key_pem).decode(),
    }
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": user}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(yaml.safe_dump(content))


@needs_faketime
def test_a_certificate_for_a_machine_is_told_of_though_it_is_never_shown() -> None:
    """Of our own authority: the server's records have its end."""
    (metrics,) = free_ports(1)
    with cluster(prefix=clock_of("-89d")) as made:
        config = "--config", str(made.config)
        run_command("cloud-server", "user", "add", *config, "machine", prefix=clock_of("-86d"))
        words = "cloud-server", "user", "certificate", *config, "machine", "--expires"
        run_command(*words, "90d", prefix=clock_of("-85d"))
        run_command(*words, "36h", prefix=clock_of("-1d"))
        made.configure({"metrics": {"listen": f"127.0.0.1:{metrics}"}})
        made.start()
        up = Cloud(made, metrics)
        made.server.wait_for_log('"certificate":"user machine ')
        (text,) = [one["text"] for one in up.warnings() if "machine" in one["text"]]
        assert text.startswith("the certificate of user machine, serial ")
        assert "expires in 4 days" in text
        assert text in up.page("/readyz?verbose").partition("[-]certificates")[2]
        assert up.page("/metrics").count('longline_certificate_expiry_seconds{certificate="user machine ') == 1


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    own = Authority("own CA")
    with cluster() as made:
        state = made.config.parent
        (metrics, sites) = free_ports(2)
        issue(own, "spiffe://longline/server", 20 * DAY).write(state, "mine")
        (state / "mine.ca").write_bytes(own.pem)
        kubeconfig_of(state / "site.yaml", issue(own, "spiffe://x/y", 5 * DAY))
        tls = {"certificate": "mine.crt", "key": "mine.key", "client_ca": "mine.ca"}
        made.configure(
            {
                "tunnel": {"listen": [made.tunnel_address], **tls},
                "metrics": {"listen": f"127.0.0.1:{metrics}"},
                "connect": {"listen_kubectl": f"127.0.0.1:{sites}"},
                "cluster": [{"name": "site-a", "agent": "box-7", "kubeconfig": "site.yaml"}],
            }
        )
        made.bind("machine")
        made.start()
        issued = issue(own, "spiffe://longline/agent/box-7", DAY / 2)
        made.boxes["box-7"] = box_of(made.folder / "box-7", made.tunnel_address, own, issued)
        made.start_box("box-7")
        issue(own, "spiffe://longline/user/machine", DAY / 2).write(made.folder, "machine")
        context = ssl.create_default_context(cadata=own.pem.decode())
        context.load_cert_chain(made.folder / "machine.crt", made.folder / "machine.key")
        url = f"https://127.0.0.1:{made.fleet_port}/api/v1/nodes"
        with urllib.request.urlopen(url, context=context, timeout=scaled_s(10)) as answer:
            answer.read()
        yield Cloud(made, metrics)


def test_each_channel_tells_of_each_certificate(cloud: Cloud) -> None:
    texts = {
        "server": "the server's certificate",
        "cluster site-a": "site.yaml expires in",
        "spiffe://longline/user/machine": "spiffe://longline/user/machine",
    }
    figures = cloud.page("/metrics")
    verbose = cloud.page("/readyz?verbose")
    warned = [warning["text"] for warning in cloud.warnings() if warning["code"] == "LL2003"]
    logged = {"server": "warning", "cluster site-a": "error", "spiffe://longline/user/machine": "error"}
    for name, text in texts.items():
        assert f'longline_certificate_expiry_seconds{{certificate="{name}"}}' in figures
        assert text in verbose.partition("[-]certificates")[2]
        assert any(text in one for one in warned), (text, warned)
        assert any(text in reason for reason in cloud.told(logged[name])), (text, name)
    assert 'longline_certificate_expiry_seconds{certificate="ca"}' in figures
    with pytest.raises(urllib.error.HTTPError) as asked:
        cloud.page("/readyz/certificates")
    asked.value.close()
    assert asked.value.code == 503, "by itself it can be asked for, and alarmed on"
    assert verbose.startswith("ok\n"), "a server that works is ready"
    box = cloud.cluster.boxes["box-7"]
    box.agent.wait_for_log("LL2003", 10)
    wait_until(lambda: "box-7" in str(cloud.warnings()), "the box has told the cloud of its own", 20)
