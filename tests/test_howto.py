"""docs/howto: what can be checked of it without a cluster is true."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from cloud_server.config import load_server_config
from cloud_server.rights.policy_file import load_policy
from cloud_server.setup import init_state
from edge_agent.config import load_agent_config
from tests.support.pages import HOWTO, TOP, blocks
from tunnel.aio.identity.tls_material import ServerTls

PAGES = sorted(HOWTO.glob("*.md"))
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
LOADERS = {
    "# cloud-server.toml": load_server_config,
    "# edge-agent.toml": load_agent_config,
    "# policy.toml": load_policy,
}


def test_there_are_pages_with_configurations() -> None:
    named = set(re.findall(r"\]\(([\w-]+)\.md\)", (HOWTO / "README.md").read_text()))
    assert named == {page.stem for page in PAGES} - {"README"}
    assert sum(len(blocks(page, "toml")) for page in PAGES) >= 8


@every_page
def test_configurations_load(page: Path, tmp_path: Path) -> None:
    for text in blocks(page, "toml"):
        title = text.splitlines()[0]
        path = tmp_path / title.removeprefix("# ")
        path.write_text(text)
        LOADERS[title](path)


@every_page
def test_manifests_are_yaml(page: Path) -> None:
    for text in blocks(page, "yaml"):
        assert isinstance(yaml.safe_load(text), dict)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@every_page
def test_systemd_accepts_the_drop_ins(page: Path, tmp_path: Path) -> None:
    for text in blocks(page, "ini"):
        drop_in = tmp_path / text.splitlines()[0].removeprefix("# /")
        drop_in.parent.mkdir(parents=True)
        drop_in.write_text(text)
        unit = drop_in.parent.name.removesuffix(".d")
        shutil.copy(TOP / "packaging" / "systemd" / unit, drop_in.parent.parent)
        verify = ["systemd-analyze", "verify", f"--root={tmp_path}", "--man=no", "--recursive-errors=no", unit]
        done = subprocess.run(verify, capture_output=True, text=True, timeout=30, check=False)
        assert drop_in.name not in done.stderr


class TestKubeadm:
    page = HOWTO / "kubeadm.md"
    manifest, of_kubeadm = map(yaml.safe_load, blocks(page, "yaml"))

    def test_what_is_added_to_kube_apiserver_is_what_the_egress_file_needs(self) -> None:
        spec = self.manifest["spec"]
        (container,) = spec["containers"]
        egress = (TOP / "deploy/egress/http-over-unix.yaml").read_text()
        for flag in container["command"][1:]:
            assert flag in egress
        socket = yaml.safe_load(egress)["egressSelections"][0]["connection"]["transport"]["uds"]["udsName"]
        mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
        assert str(Path(socket).parent) in mounts.values()
        assert {volume["name"]: volume["hostPath"]["path"] for volume in spec["volumes"]} == mounts

    def test_kubeadms_own_configuration_says_the_same(self) -> None:
        (container,) = self.manifest["spec"]["containers"]
        server = self.of_kubeadm["apiServer"]
        assert [f"--{arg['name']}={arg['value']}" for arg in server["extraArgs"]] == container["command"][1:]
        assert server["extraEnvs"] == container["env"]
        types = {volume["name"]: volume["hostPath"]["type"] for volume in self.manifest["spec"]["volumes"]}
        for volume, mount in zip(server["extraVolumes"], container["volumeMounts"], strict=True):
            assert volume.pop("hostPath") == mount["mountPath"]
            assert volume.pop("pathType") == types[mount["name"]]
            assert volume == mount

    def test_the_node_agents_file_is_that_of_the_daemonset(self, tmp_path: Path) -> None:
        by_hand = tmp_path / "edge-agent.toml"
        by_hand.write_text(next(text for text in blocks(self.page, "toml") if "127.0.0.1:10250" in text))
        assert load_agent_config(by_hand).allow == load_agent_config(
            TOP / "deploy/kustomize/overlays/edge-agent/edge-agent.toml"
        ).allow  # fmt: skip

    @pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
    def test_the_servers_certificate_is_made_anew(self, tmp_path: Path) -> None:
        version = subprocess.run(["openssl", "version"], capture_output=True, text=True, check=True).stdout
        if not version.startswith("OpenSSL 3"):
            pytest.skip(f"{version.strip()} cannot copy extensions")
        init_state(tmp_path, ["cloud.example.com", "192.0.2.10"])
        files = ServerTls(
            certificate=tmp_path / "server.crt", key=tmp_path / "server.key", client_ca=tmp_path / "ca.crt"
        )
        before = files.load()
        same, other = (text for text in blocks(self.page, "sh") if "openssl" in text)
        usual = ["DNS:localhost", "IP Address:127.0.0.1", "IP Address:0:0:0:0:0:0:0:1"]
        run(same, tmp_path)
        assert files.load().certificate != before.certificate
        given = ["DNS:cloud.example.com", "IP Address:192.0.2.10"]
        assert names(tmp_path / "server.crt") == ["URI:spiffe://longline/server", *given, *usual]
        run(other + same.partition("\n")[2], tmp_path)
        assert names(tmp_path / "server.crt") == ["URI:spiffe://longline/server", "DNS:new.example.com", *usual]
        assert files.load().key == before.key
        verify = ["openssl", "verify", "-purpose", "sslserver", "-CAfile", "ca.crt", "server.crt"]
        assert subprocess.run(verify, cwd=tmp_path, capture_output=True, timeout=30, check=False).returncode == 0


def run(commands: str, folder: Path) -> None:
    """Run a block of a page, as a user does."""
    argv = ["sh", "-euc", commands]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def names(certificate: Path) -> list[str]:
    """The names in a certificate, as OpenSSL shows them."""
    show = ["openssl", "x509", "-in", str(certificate), "-noout", "-ext", "subjectAltName"]
    shown = subprocess.run(show, capture_output=True, text=True, timeout=30, check=True).stdout
    return [name.strip() for name in shown.splitlines()[1].split(",")]


def test_konnectivitys_metrics_are_those_of_the_server() -> None:
    source = (TOP / "cloud_server/operate/metrics.py").read_text()
    told = re.search(
        r"`konnectivity_network_proxy_server_`:(.*?)\.\n", (HOWTO / "from-konnectivity.md").read_text(), re.DOTALL
    )
    assert told is not None
    found = re.findall(r"`(\w+)`", told[1])
    assert len(found) > 5
    assert [name for name in found if f'"{name}"' not in source] == []
