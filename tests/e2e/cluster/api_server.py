"""One kube-apiserver, and an administrator with a kubectl at it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.cluster import site
from tests.e2e.cluster.namespaces import DIES_WITH_PARENT
from tests.e2e.cluster.pki import MASTERS, ClusterPki
from tests.support.kubectl_user import KubectlUser
from tests.support.ports import free_ports
from tests.support.processes import Daemon, ProcessFailed
from tests.support.waits import Deadline

SERVICE_CIDR = "10.96.0.0/16"
OWN_SERVICE = "10.96.0.1"
FRONT_PROXY = "front-proxy-client"
READY_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all API servers of a cluster share."""

    programs: Path
    """Of `build.programs`."""
    pki: ClusterPki
    address: str
    """Of this machine, where the nodes can reach it."""
    etcd: str
    """Its URL."""
    service_account_key: Path
    nodes: Iterable[str]
    prefix: Sequence[str] = ()
    """What comes before each of its programs: what enters the network that they are in."""
    endpoint_routing: bool = False
    """Whether it dials an endpoint of a webhook's or API's service in place of the service's cluster IP."""


class ApiServer(KubectlUser):
    """Call `close` at the end."""

    def __init__(self, folder: Path, setting: Setting, egress: str | None = None, *, first: bool = True) -> None:
        """Make its configuration.

        Args:
            folder: For its files; made here.
            setting: The cluster's.
            egress: An EgressSelectorConfiguration: the ways that it takes to nodes, pods and services. None: the direct
                ones, and there are none to a node behind a router.
            first: Whether it is the one that the service `kubernetes` leads to.
        """
        folder.mkdir()
        self.folder = folder
        self.prefix = setting.prefix
        self._setting = setting
        (self._port,) = free_ports(1, setting.address)
        self.server = f"https://{setting.address}:{self._port}"
        """Where it is found, from everywhere."""
        self.kubeconfig = setting.pki.kubeconfig(folder / "admin.kubeconfig", self.server, "admin", group=MASTERS)
        flags = self._flags() | self._kubelet_flags() | self._aggregation_flags()
        if egress is not None:
            flags["egress-selector-config-file"] = self._file("egress.yaml", egress)
        if not first:
            flags["endpoint-reconciler-type"] = "none"
        argv = ["/usr/bin/env", str(setting.programs / "kube-apiserver")]
        argv += [f"--{name}={value}" for name, value in flags.items()]
        prefix = [*setting.prefix, *DIES_WITH_PARENT, *self._with_hosts()]
        self.daemon = Daemon("kube-apiserver", argv, folder / "kube-apiserver.log", prefix=prefix)

        # It asks a silent kubelet for a sign of life, and gives it up after 45 s; kubectl then takes what it has of a
        # log for all of it. A link may be away for longer.
        self.daemon.environment["HTTP2_PING_TIMEOUT_SECONDS"] = "120"

    def wait_ready(self) -> None:
        """Wait until it serves.

        Raises:
            ProcessFailed: it did not in time, or has ended.
        """
        deadline = Deadline(READY_S)
        while self.run_kubectl("get", "--raw", "/readyz").returncode:
            if deadline.passed() or not self.daemon.running:
                raise ProcessFailed(f"kube-apiserver is not ready:\n{self.daemon.tail()}")
            time.sleep(0.1)

    def apply(self, *manifests: dict[str, Any]) -> None:
        """Create objects, or bring them up to date."""
        content = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
        self.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(content).encode())

    def close(self) -> None:
        self.daemon.close()

    # Internal

    def _flags(self) -> dict[str, object]:
        setting, pki = self._setting, self._setting.pki
        hosts = [setting.address, "127.0.0.1", OWN_SERVICE]
        hosts += ["kubernetes", "kubernetes.default", "kubernetes.default.svc"]
        certificate, key = pki.issue("serving", "kube-apiserver", hosts=hosts, into=self.folder)
        return {
            "etcd-servers": setting.etcd,
            "bind-address": setting.address,
            "secure-port": self._port,
            "tls-cert-file": certificate,
            "tls-private-key-file": key,
            "client-ca-file": pki.ca,
            "authorization-mode": "Node,RBAC",
            "enable-admission-plugins": "NodeRestriction",
            "enable-aggregator-routing": str(setting.endpoint_routing).lower(),
            "service-cluster-ip-range": SERVICE_CIDR,
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": setting.service_account_key,
            "service-account-signing-key-file": setting.service_account_key,
        }

    def _kubelet_flags(self) -> dict[str, object]:
        certificate, key = self._setting.pki.issue("kubelet", "kubelet-client", group=MASTERS, into=self.folder)
        return {
            "kubelet-client-certificate": certificate,
            "kubelet-client-key": key,
            "kubelet-certificate-authority": self._setting.pki.ca,
            # The nodes of all sites have the same address: only their names tell them apart.
            "kubelet-preferred-address-types": "Hostname,InternalIP",
        }

    def _aggregation_flags(self) -> dict[str, object]:
        certificate, key = self._setting.pki.issue("front-proxy", FRONT_PROXY, into=self.folder)
        return {
            "proxy-client-cert-file": certificate,
            "proxy-client-key-file": key,
            "requestheader-client-ca-file": self._setting.pki.ca,
            "requestheader-allowed-names": FRONT_PROXY,
            "requestheader-extra-headers-prefix": "X-Remote-Extra-",
            "requestheader-group-headers": "X-Remote-Group",
            "requestheader-username-headers": "X-Remote-User",
        }

    def _with_hosts(self) -> list[str]:
        """A file /etc/hosts of its own, for the one request (nodes/NAME/proxy) whose name the API server looks up."""
        hosts = self._file("hosts", "".join(f"{site.NODE_ADDRESS} {name}\n" for name in self._setting.nodes))
        script = 'mount --bind "$1" /etc/hosts; shift; exec "$@"'
        return ["unshare", "--mount", "sh", "-euc", script, "sh", str(hosts)]

    def _file(self, name: str, content: str) -> Path:
        path = self.folder / name
        path.write_text(content)
        return path
