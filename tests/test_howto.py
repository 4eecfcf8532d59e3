"""docs/howto: what can be checked of it without a cluster is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from cloud_server.config import load_server_config
from edge_agent.config import load_agent_config

TOP = Path(__file__).parent.parent
PAGES = sorted((TOP / "docs" / "howto").glob("*.md"))
every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, or those without one for an empty string."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def test_there_are_pages_with_configurations() -> None:
    assert {page.stem for page in PAGES} >= {"README", "kubeadm", "k3s-sites", "managed", "from-konnectivity"}
    assert sum(len(blocks(page, "toml")) for page in PAGES) >= 8


@every_page
def test_configurations_load(page: Path, tmp_path: Path) -> None:
    for text in blocks(page, "toml"):
        name = text.splitlines()[0].removeprefix("# ")
        path = tmp_path / name
        path.write_text(text)
        load = {"cloud-server.toml": load_server_config, "edge-agent.toml": load_agent_config}[name]
        load(path)


@every_page
def test_manifests_are_yaml(page: Path) -> None:
    for text in blocks(page, "yaml"):
        assert isinstance(yaml.safe_load(text), dict)


@every_page
def test_files_of_the_repository_are_there(page: Path) -> None:
    text = page.read_text()
    named = set(re.findall(r"\b(?:deploy|packaging)/[\w./-]*\w", text))
    missing = [name for name in named if not (TOP / name).exists()]
    assert missing == []


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]+)(#[^)]*)?\)", page.read_text()):
        file = page.parent / target
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert anchor[1:] in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_what_is_added_to_kube_apiserver_is_what_the_egress_file_needs() -> None:
    (text,) = blocks(TOP / "docs/howto/kubeadm.md", "yaml")
    spec = yaml.safe_load(text)["spec"]
    (container,) = spec["containers"]
    egress = (TOP / "deploy/egress/http-over-unix.yaml").read_text()
    for flag in container["command"][1:]:
        assert flag in egress
    socket = yaml.safe_load(egress)["egressSelections"][0]["connection"]["transport"]["uds"]["udsName"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert str(Path(socket).parent) in mounts.values()
    assert {volume["name"]: volume["hostPath"]["path"] for volume in spec["volumes"]} == mounts


def test_konnectivitys_metrics_are_those_of_the_server() -> None:
    source = (TOP / "cloud_server/metrics.py").read_text()
    told = re.search(
        r"`konnectivity_network_proxy_server_` with(.*?)\.\n",
        (TOP / "docs/howto/from-konnectivity.md").read_text(),
        re.DOTALL,
    )
    assert told is not None
    names = re.findall(r"`(\w+)`", told[1])
    assert len(names) > 5
    assert [name for name in names if f'"{name}"' not in source] == []
