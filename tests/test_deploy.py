"""deploy/ fits together, and fits the daemons: what the manifests name is what the configurations have."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud_server.config import ServerConfig, load_server_config
from cloud_server.kubernetes.lightkube_access import LightkubeAccess
from edge_agent.agent import AUTONOMY
from edge_agent.autonomy.kept.sharing import SHAREABLE
from edge_agent.config import AgentConfig, AutonomyConfig, load_agent_config
from tests.support.kubectl_choice import find_kubectl
from tests.support.netns import missing_for_namespaces
from tests.support.pki import Authority
from tunnel.aio.process.version import VERSION

TOP = Path(__file__).parent.parent
DEPLOY = TOP / "deploy"
OVERLAYS = DEPLOY / "kustomize" / "overlays"
BESIDE = DEPLOY / "beside-apiserver"
USER = 10001
GIB = 1024**3
AFTER_LOAD_MB = (65.3, 89.0)
"""Resident memory of agent and server behind the load of `make bench`."""

Manifest = dict[str, Any]


def render(overlay: str) -> list[Manifest]:
    """An overlay as `kubectl apply -k` would have it."""
    return list(yaml.safe_load_all(_rendered(overlay)))


@functools.cache
def _rendered(overlay: str) -> str:
    argv = [str(find_kubectl()), "kustomize", str(OVERLAYS / overlay)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def one(manifests: list[Manifest], kind: str, name: str = "") -> Manifest:
    (found,) = [each for each in manifests if each["kind"] == kind and each["metadata"]["name"].startswith(name)]
    return found


def pod_specs() -> dict[str, Manifest]:
    static = yaml.safe_load((BESIDE / "static-pod.yaml").read_text())
    return {
        "static pod": static["spec"],
        "Deployment": one(render("cloud-server"), "Deployment")["spec"]["template"]["spec"],
        "DaemonSet": one(render("edge-agent"), "DaemonSet")["spec"]["template"]["spec"],
    }


every_pod = pytest.mark.parametrize("which", ["static pod", "Deployment", "DaemonSet"])


def containers(spec: Manifest) -> Iterator[Manifest]:
    yield from spec["initContainers"]
    yield from spec["containers"]


class TestPods:
    @every_pod
    def test_they_may_do_no_more_than_they_must(self, which: str) -> None:
        spec = pod_specs()[which]
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["runAsGroup"]) == (USER, USER)
        for container in containers(spec):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"]["drop"] == ["ALL"]
            if context.get("runAsUser") == 0:
                assert container["command"][0] == "/bin/chown"
                assert context["capabilities"]["add"] == ["CHOWN"]
            else:
                assert "add" not in context["capabilities"]

    @every_pod
    def test_they_drain_before_they_are_killed(self, which: str) -> None:
        assert pod_specs()[which]["terminationGracePeriodSeconds"] > ServerConfig().drain_s == AgentConfig().drain_s

    @every_pod
    def test_the_image_is_this_version(self, which: str) -> None:
        assert {container["image"] for container in containers(pod_specs()[which])} == {f"longline:{VERSION}"}

    @every_pod
    def test_every_file_that_they_name_is_mounted(self, which: str) -> None:
        for container in containers(pod_specs()[which]):
            mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
            words = " ".join(container["command"]).replace('"', " ").split()
            paths = [word for word in words if re.match(r"/(var|run|etc)/", word)]
            assert paths
            for path in paths:
                assert any(path == mount or path.startswith(f"{mount}/") for mount in mounts), path

    def test_only_the_deployment_has_a_token_of_the_cluster(self) -> None:
        specs = pod_specs()
        assert {name for name, spec in specs.items() if spec["automountServiceAccountToken"]} == {"Deployment"}
        base = one(render("cloud-server"), "ServiceAccount")
        assert base["automountServiceAccountToken"] is False
        assert specs["Deployment"]["serviceAccountName"] == base["metadata"]["name"]

    def test_what_they_ask_for_is_what_was_measured(self) -> None:
        of_agent, of_server = (figure * 1e6 / 1024**2 for figure in AFTER_LOAD_MB)
        specs = pod_specs()
        for which, needed in (("DaemonSet", of_agent), ("Deployment", of_server + 21), ("static pod", of_server + 21)):
            asked = specs[which]["containers"][0]["resources"]["requests"]["memory"]
            assert needed < float(asked.removesuffix("Mi")) < 1.5 * needed


class TestCloudServer:
    @pytest.fixture
    def manifests(self) -> list[Manifest]:
        return render("cloud-server")

    @pytest.fixture
    def config(self, manifests: list[Manifest], tmp_path: Path) -> ServerConfig:
        path = tmp_path / "cloud-server.toml"
        path.write_text(one(manifests, "ConfigMap")["data"]["cloud-server.toml"])
        return load_server_config(path)

    def test_ports(self, manifests: list[Manifest], config: ServerConfig) -> None:
        connect = config.connect
        listens = {
            "tunnel": config.tunnel.listen[0], "connect": connect.listen, "kubectl": connect.listen_kubectl,
            "socks": config.socks.listen, "fleet": config.fleet.listen, "metrics": config.metrics.listen,
        }  # fmt: skip
        (container,) = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports == {name: listen.port for name, listen in listens.items() if listen is not None}
        served = [port for each in manifests if each["kind"] == "Service" for port in each["spec"]["ports"]]
        assert {port["targetPort"]: port["port"] for port in served} == {
            name: number for name, number in ports.items() if name != "metrics"
        }

    def test_services_select_the_pod(self, manifests: list[Manifest]) -> None:
        labels = one(manifests, "Deployment")["spec"]["template"]["metadata"]["labels"]
        for each in manifests:
            if each["kind"] == "Service":
                assert each["spec"]["selector"].items() <= labels.items()

    def test_the_certificate_has_the_name_of_the_service(self, manifests: list[Manifest]) -> None:
        service = one(manifests, "Service", "cloud-server-connect")["metadata"]
        hosts = one(manifests, "ConfigMap")["data"]["hosts"].split()
        assert f"{service['name']}.{service['namespace']}.svc" in hosts

    def test_probes(self, manifests: list[Manifest]) -> None:
        (container,) = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"]
        assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "metrics"}
        assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "metrics"}

    async def test_the_kubeconfig_is_one(self, manifests: list[Manifest], tmp_path: Path) -> None:
        await use_kubeconfig(one(manifests, "ConfigMap")["data"]["kubernetes.kubeconfig"], tmp_path)


class TestBesideApiserver:
    config = load_server_config(BESIDE / "cloud-server.toml")

    def test_the_socket_is_where_the_egress_files_look(self) -> None:
        for path in (DEPLOY / "egress").glob("*-unix.yaml"):
            transport = yaml.safe_load(path.read_text())["egressSelections"][0]["connection"]["transport"]
            assert transport["uds"]["udsName"] == str(self.config.connect.unix)

    def test_the_folder_of_the_socket_is_the_hosts_own(self) -> None:
        volumes = {volume["name"]: volume for volume in pod_specs()["static pod"]["volumes"]}
        assert self.config.connect.unix is not None
        folder = str(self.config.connect.unix.parent)
        assert volumes["socket"]["hostPath"]["path"] == folder
        unit = (TOP / "packaging/systemd/cloud-server.service").read_text()
        assert f"RuntimeDirectory={Path(folder).relative_to('/run')}\n" in unit

    def test_probes(self) -> None:
        spec = pod_specs()["static pod"]
        assert self.config.metrics.listen is not None
        own = {"host": self.config.metrics.listen.host, "port": self.config.metrics.listen.port}
        assert spec["containers"][0]["readinessProbe"]["httpGet"] == {**own, "path": "/readyz"}
        assert spec["containers"][0]["livenessProbe"]["httpGet"] == {**own, "path": "/livez"}

    def test_a_static_pod_needs_nothing_of_the_api(self) -> None:
        spec = pod_specs()["static pod"]
        assert "serviceAccountName" not in spec
        assert {kind for volume in spec["volumes"] for kind in volume} == {"name", "hostPath", "emptyDir"}

    async def test_the_kubeconfig_is_one(self, tmp_path: Path) -> None:
        await use_kubeconfig((BESIDE / "kubernetes.kubeconfig").read_text(), tmp_path)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize(("unit", "drop_in"), [
    ("cloud-server.service", BESIDE / "host-service.conf"), ("edge-agent.service", TOP / "deploy/node/autonomy.conf"),
])  # fmt: skip
def test_systemd_accepts_a_drop_in(tmp_path: Path, unit: str, drop_in: Path) -> None:
    units = tmp_path / "etc/systemd/system"
    (units / f"{unit}.d").mkdir(parents=True)
    shutil.copy(TOP / "packaging/systemd" / unit, units)
    shutil.copy(drop_in, units / f"{unit}.d")
    argv = ["systemd-analyze", "verify", f"--root={tmp_path}", "--man=no", "--recursive-errors=no"]
    done = subprocess.run([*argv, unit], capture_output=True, text=True, timeout=30)
    assert drop_in.name not in done.stderr


NODE = DEPLOY / "node"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("unit", ["edge-agent-autonomy.socket", "longline-address.service"])
def test_systemd_accepts_a_unit_of_a_node(tmp_path: Path, unit: str) -> None:
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    shutil.copy(TOP / "packaging/systemd/edge-agent.service", units)
    shutil.copy(NODE / unit, units)
    argv = ["systemd-analyze", "verify", f"--root={tmp_path}", "--man=no", "--recursive-errors=no"]
    done = subprocess.run([*argv, unit], capture_output=True, text=True, timeout=30)
    # Programs and the targets of the system are not in this root.
    lines = [line for line in done.stderr.splitlines() if unit in line and "is not executable" not in line]
    assert [line for line in lines if "not found" not in line] == []


def test_the_socket_of_a_node_is_that_of_the_agents_listener() -> None:
    lines = (NODE / "edge-agent-autonomy.socket").read_text().splitlines()
    assert f"FileDescriptorName={AUTONOMY}" in lines
    assert f"ListenStream={AutonomyConfig.listen}" in lines
    (for_pods,) = [line for line in lines if line.startswith("#ListenStream=")]
    address = for_pods.partition("=")[2].rpartition(":")[0]
    assert f" {address}/32 " in (NODE / "longline-address.service").read_text()


def test_the_address_for_pods_is_made_again_and_again() -> None:
    """In a network of its own. A kernel without dummy interfaces has bridges, which do as well."""
    if reason := missing_for_namespaces():
        pytest.skip(reason)
    lines = (NODE / "longline-address.service").read_text().splitlines()
    commands = [line.partition("=")[2] for line in lines if line.startswith("ExecStart=")]
    kind = "ip link add longline type dummy 2> /dev/null || ip link add longline type bridge"
    words = [command.removeprefix("-") + (" || true" if command.startswith("-") else "") for command in commands]
    assert words[0] == "ip link add longline type dummy || true"
    script = "\n".join([*[f"({kind} || true)", *words[1:]] * 2, "ip -4 -brief address show dev longline"])
    argv = ["unshare", "--net", "sh", "-euc", script]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[2:] == ["169.254.64.40/32"]


class TestEdgeAgent:
    def test_the_server_is_the_same_in_both_places(self, tmp_path: Path) -> None:
        data = one(render("edge-agent"), "ConfigMap")["data"]
        (tmp_path / "edge-agent.toml").write_text(data["edge-agent.toml"])
        assert load_agent_config(tmp_path / "edge-agent.toml").cloud.servers == [data["server"]]

    @pytest.mark.parametrize("volume", ["join-token", "node"])
    def test_the_tokens_are_only_where_they_are_used(self, volume: str) -> None:
        spec = pod_specs()["DaemonSet"]
        holders = [c["name"] for c in containers(spec) if any(m["name"] == volume for m in c["volumeMounts"])]
        assert holders == ["join"]

    def test_a_node_joins_as_the_account_that_the_server_takes(self, tmp_path: Path) -> None:
        spec = pod_specs()["DaemonSet"]
        account = one(render("edge-agent"), "ServiceAccount")["metadata"]
        (volume,) = [each for each in spec["volumes"] if each["name"] == "node"]
        (source,) = volume["projected"]["sources"]
        (tmp_path / "kubernetes.kubeconfig").touch()
        for text in (
            one(render("cloud-server"), "ConfigMap")["data"]["cloud-server.toml"],
            (BESIDE / "cloud-server.toml").read_text(),
        ):
            (tmp_path / "cloud-server.toml").write_text(text)
            taken = load_server_config(tmp_path / "cloud-server.toml").kubernetes
            assert taken.join == [f"{account['namespace']}/{account['name']}"]
            assert source["serviceAccountToken"]["audience"] == taken.join_audience
        assert spec["serviceAccountName"] == account["name"]


def test_the_server_may_see_three_kinds_and_change_nothing() -> None:
    for overlay in ("cloud-server", "beside-apiserver"):
        manifests = render(overlay)
        role, binding = one(manifests, "ClusterRole"), one(manifests, "ClusterRoleBinding")
        granted = {
            (group, resource, verb)
            for rule in role["rules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
        kinds = [("", "nodes"), ("", "services"), ("", "pods"), ("discovery.k8s.io", "endpointslices")]
        reviews = ("authentication.k8s.io", "tokenreviews", "create")  # asks a question, and changes nothing
        assert granted == {*((*kind, verb) for kind in kinds for verb in ("list", "watch")), reviews}
        assert binding["roleRef"]["name"] == role["metadata"]["name"]
        account = one(manifests, "ServiceAccount")["metadata"]
        assert [(s["kind"], s["name"], s["namespace"]) for s in binding["subjects"]] == [
            ("ServiceAccount", account["name"], account["namespace"])
        ]


class TestImage:
    lines = (DEPLOY / "Containerfile").read_text().splitlines()

    def test_its_steps_are_those_of_the_readme(self) -> None:
        steps = [line.removeprefix("RUN ") for line in self.lines if line.startswith("RUN ")]
        readme = (TOP / "README.md").read_text().splitlines()
        start = readme.index("python3 -m venv /opt/longline")
        assert steps == readme[start : start + 3]

    def test_it_copies_all_that_is_installed(self, tmp_path: Path) -> None:
        tree = tmp_path / "src"
        tree.mkdir()
        for line in self.lines:
            if line.startswith("COPY ") and "--from" not in line:
                *sources, destination = line.split()[1:]
                for source in sources:
                    assert (TOP / source).exists(), line
                    if (TOP / source).is_dir():
                        skip = shutil.ignore_patterns("__pycache__")
                        shutil.copytree(TOP / source, tree / destination, ignore=skip)
                    else:
                        shutil.copy(TOP / source, tree / destination)
        pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-index"]
        argv = [*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), "."]
        done = subprocess.run(argv, cwd=tree, capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, done.stderr
        assert (tree / "requirements.lock").exists()
        assert list(tmp_path.glob(f"longline-{VERSION}-*.whl"))

    def test_its_base_is_named_by_one_digest(self) -> None:
        bases = {line.split()[1] for line in self.lines if line.startswith("FROM ")}
        assert len(bases) == 1
        assert re.fullmatch(r"python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", bases.pop())

    def test_it_runs_as_the_user_of_the_manifests(self) -> None:
        assert f"USER {USER}:{USER}" in self.lines


@pytest.mark.parametrize("path", sorted((DEPLOY / "egress").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_egress_file_says_what_its_name_says(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    assert (content["apiVersion"], content["kind"]) == ("apiserver.k8s.io/v1beta1", "EgressSelectorConfiguration")
    (selection,) = content["egressSelections"]
    assert selection["name"] == "cluster"
    protocol, _, transport = path.stem.partition("-over-")
    assert selection["connection"]["proxyProtocol"] == {"http": "HTTPConnect", "grpc": "GRPC"}[protocol]
    assert list(selection["connection"]["transport"]) == [{"unix": "uds", "tls": "tcp"}[transport]]
    assert "--egress-selector-config-file=" in path.read_text()


async def use_kubeconfig(text: str, folder: Path) -> None:
    """Have the server read it; the files that it names are replaced by some that are there."""
    content = yaml.safe_load(text)
    cluster = content["clusters"][0]["cluster"]
    assert "tokenFile" in content["users"][0]["user"]
    authority = folder / "authority.crt"
    authority.write_bytes(Authority("cluster").pem)
    cluster["certificate-authority"] = str(authority)
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(content))
    await LightkubeAccess.from_kubeconfig(path).aclose()


def test_the_reader_of_a_node_may_see_what_is_shared_and_nothing_else() -> None:
    manifests = list(yaml.safe_load_all((DEPLOY / "node" / "reader.yaml").read_text()))
    rules = one(manifests, "ClusterRole")["rules"]
    assert {(group, resource) for rule in rules for group in rule["apiGroups"] for resource in rule["resources"]} == (
        SHAREABLE
    )
    assert all(rule["verbs"] == ["list", "watch"] for rule in rules)
