"""The part of Kubernetes in the cloud: etcd, kube-apiserver, kube-controller-manager and kube-scheduler."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.e2e.cluster import site
from tests.e2e.cluster.namespaces import DIES_WITH_PARENT
from tests.e2e.cluster.pki import MASTERS, ClusterPki
from tests.support.cluster import free_ports
from tests.support.kubectl_user import KubectlUser
from tests.support.netns import BoxNamespace
from tests.support.processes import Daemon, ProcessFailed
from tests.support.waits import Deadline

SERVICE_CIDR = "10.96.0.0/16"
KUBERNETES_SERVICE = "10.96.0.1"
POD_CIDR = "10.244.0.0/16"
READY_S = 60.0


class ControlPlane(KubectlUser):
    """Use `control_plane()`, which ends it and removes everything."""

    def __init__(
        self, folder: Path, programs: Path, pki: ClusterPki, routers: Mapping[str, BoxNamespace], egress: str | None
    ) -> None:
        self.folder = folder
        self.pki = pki
        self._programs = programs
        self._etcd_port, self._etcd_peer_port = free_ports(2)
        address = site.outside(routers)
        (self.port,) = free_ports(1, address)
        self._address = address
        self.server = f"https://{address}:{self.port}"
        """Where the API server is found, from everywhere."""
        self.kubeconfig = pki.kubeconfig(folder / "admin.kubeconfig", self.server, "admin", group=MASTERS)
        self._egress = folder / "egress.yaml" if egress else None
        if egress:
            (folder / "egress.yaml").write_text(egress)
        self._service_account_key = folder / "service-account.key"
        self._service_account_key.write_bytes(_rsa_key())
        self._hosts = folder / "hosts"
        self._hosts.write_text("".join(f"{site.NODE_ADDRESS} {name}\n" for name in routers))
        self.apiserver = self._daemon("kube-apiserver", *self._apiserver_flags(), enter=self._with_hosts())
        self.daemons = [
            self._daemon("etcd", *self._etcd_flags()),
            self.apiserver,
            self._daemon("kube-controller-manager", *self._controller_manager_flags()),
            self._daemon("kube-scheduler", "--kubeconfig", self._own("kube-scheduler"), *_FOLLOWER),
        ]

    def start(self) -> None:
        """Start all of it; `wait_ready` tells when it is up."""
        for daemon in self.daemons:
            daemon.start()

    def wait_ready(self) -> None:
        """Wait until the API server serves.

        Raises:
            ProcessFailed: it did not in time, or one of the programs has ended.
        """
        deadline = Deadline(READY_S)
        while self.run_kubectl("get", "--raw", "/readyz").returncode:
            for daemon in self.daemons:
                if deadline.passed() or not daemon.running:
                    raise ProcessFailed(f"the control plane is not ready:\n{self.logs(30)}")
            time.sleep(0.1)

    def apply(self, *manifests: dict[str, Any]) -> None:
        """Create objects, or bring them up to date."""
        content = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(content).encode())

    def logs(self, lines: int = 15) -> str:
        """The tails of its logs, for people."""
        return "\n".join(daemon.tail(lines) for daemon in self.daemons)

    def close(self) -> None:
        for daemon in reversed(self.daemons):
            daemon.close()

    # Internal

    def _daemon(self, program: str, *flags: str, enter: Sequence[str] = ()) -> Daemon:
        argv = ["/usr/bin/env", str(self._programs / program), *flags]
        return Daemon(program, argv, self.folder / f"{program}.log", prefix=[*DIES_WITH_PARENT, *enter])

    def _with_hosts(self) -> list[str]:
        """A file /etc/hosts of its own, for the one request (nodes/NAME/proxy) whose name the API server looks up."""
        script = 'mount --bind "$1" /etc/hosts; shift; exec "$@"'
        return ["unshare", "--mount", "sh", "-euc", script, "sh", str(self._hosts)]

    def _own(self, user: str) -> str:
        """The kubeconfig of a part of the control plane; Kubernetes knows what each may do."""
        return str(self.pki.kubeconfig(self.folder / f"{user}.kubeconfig", self.server, f"system:{user}"))

    def _etcd_flags(self) -> list[str]:
        clients, peers = (f"http://127.0.0.1:{port}" for port in (self._etcd_port, self._etcd_peer_port))
        return [
            "--data-dir", str(self.folder / "etcd"), "--unsafe-no-fsync", "--log-level", "warn",
            "--listen-client-urls", clients, "--advertise-client-urls", clients,
            "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
            "--initial-cluster", f"default={peers}",
        ]  # fmt: skip

    def _apiserver_flags(self) -> list[str]:
        hosts = [self._address, KUBERNETES_SERVICE, "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        certificate, key = self.pki.issue("kube-apiserver", "kube-apiserver", hosts=hosts)
        kubelet_certificate, kubelet_key = self.pki.issue("kubelet-client", "kubelet-client", group=MASTERS)
        proxy_certificate, proxy_key = self.pki.issue("front-proxy", "front-proxy-client")
        flags = {
            "etcd-servers": f"http://127.0.0.1:{self._etcd_port}",
            "bind-address": self._address,
            "secure-port": self.port,
            "tls-cert-file": certificate,
            "tls-private-key-file": key,
            "client-ca-file": self.pki.ca,
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "service-cluster-ip-range": SERVICE_CIDR,
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": self._service_account_key,
            "service-account-signing-key-file": self._service_account_key,
            "kubelet-client-certificate": kubelet_certificate,
            "kubelet-client-key": kubelet_key,
            "kubelet-certificate-authority": self.pki.ca,
            # The nodes of all sites have the same address: only their names tell them apart.
            "kubelet-preferred-address-types": "Hostname,InternalIP",
            "proxy-client-cert-file": proxy_certificate,
            "proxy-client-key-file": proxy_key,
            "requestheader-client-ca-file": self.pki.ca,
            "requestheader-allowed-names": "front-proxy-client",
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-username-headers": "X-Remote-User",
        }
        if self._egress is not None:
            flags["egress-selector-config-file"] = self._egress
        return [f"--{name}={value}" for name, value in flags.items()]

    def _controller_manager_flags(self) -> list[str]:
        flags = {
            "kubeconfig": self._own("kube-controller-manager"),
            "use-service-account-credentials": "true",
            "service-account-private-key-file": self._service_account_key,
            "root-ca-file": self.pki.ca,
            "cluster-signing-cert-file": self.pki.ca,
            "cluster-signing-key-file": self.pki.ca_key,
            "allocate-node-cidrs": "true",
            "cluster-cidr": POD_CIDR,
            "service-cluster-ip-range": SERVICE_CIDR,
        }
        return [*(f"--{name}={value}" for name, value in flags.items()), *_FOLLOWER]


_FOLLOWER = ("--leader-elect=false", "--secure-port=0")
"""There is one of each, and nobody asks it for its health."""


def _rsa_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip


@contextlib.contextmanager
def control_plane(
    folder: Path, programs: Path, pki: ClusterPki, routers: Mapping[str, BoxNamespace], egress: str | None = None
) -> Iterator[ControlPlane]:
    """A control plane that is not started yet; it is ended at the end.

    Args:
        folder: For its data and logs; made here.
        programs: Of `build.programs`.
        pki: The cluster's.
        routers: Of the sites, whose names are those of their nodes.
        egress: An EgressSelectorConfiguration: the ways that the API server takes to nodes, pods and services. None:
            the direct ones, and there are none to a node behind a router.
    """
    folder.mkdir()
    made = ControlPlane(folder, programs, pki, routers, egress)
    try:
        yield made
    finally:
        made.close()
