"""The part of Kubernetes beside its nodes: etcd, kube-apiserver, kube-controller-manager and kube-scheduler."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.e2e.cluster.api_server import SERVICE_CIDR, ApiServer, Setting
from tests.e2e.cluster.namespaces import DIES_WITH_PARENT
from tests.e2e.cluster.pki import ClusterPki
from tests.support.ports import free_ports
from tests.support.processes import Daemon

LOG_LINES = 6
"""Of each of its programs, beside a failed test."""
POD_CIDR = "10.244.0.0/16"
ALONE = ("--leader-elect=false", "--secure-port=0")
"""There is one of each, and nobody asks it for its health."""


class ControlPlane:
    """Use `control_plane()`, which ends it and removes everything."""

    def __init__(
        self, folder: Path, setting: Setting, egress: str | None, *, pod_cidrs: bool, lease_s: int | None
    ) -> None:
        self.folder = folder
        self.setting = setting
        self.pki = setting.pki
        self.api = ApiServer(folder / "api", setting, egress)
        self._pod_cidrs = pod_cidrs
        self._lease_s = lease_s
        self._etcd = self._daemon("etcd", *self._etcd_flags())
        self._controllers = [
            self._daemon("kube-controller-manager", *self._controller_manager_flags()),
            self._daemon("kube-scheduler", "--kubeconfig", self._own("kube-scheduler"), *ALONE),
        ]
        self.daemons = [self._etcd, self.api.daemon, *self._controllers]

    def start(self) -> None:
        """Start to start; `wait_ready` goes on."""
        self._etcd.start()
        self.api.daemon.start()

    def wait_ready(self) -> None:
        """Wait until there is an API, and start those that need it.

        Raises:
            ProcessFailed: there is none in time.
        """
        self.api.wait_ready()
        for daemon in self._controllers:
            daemon.start()

    @contextlib.contextmanager
    def another_api(self, name: str, egress: str) -> Iterator[ApiServer]:
        """One more API server of the same cluster, which goes other ways to the nodes."""
        api = ApiServer(self.folder / name, self.setting, egress, first=False)
        try:
            api.daemon.start()
            api.wait_ready()
            yield api
        finally:
            api.close()

    def logs(self, lines: int = LOG_LINES) -> str:
        """The tails of its logs, for people."""
        return "\n".join(daemon.tail(lines) for daemon in self.daemons)

    def close(self) -> None:
        for daemon in reversed(self.daemons):
            daemon.close()

    # Internal

    def _daemon(self, program: str, *flags: str) -> Daemon:
        argv = ["/usr/bin/env", str(self.setting.programs / program), *flags]
        prefix = [*self.setting.prefix, *DIES_WITH_PARENT]
        return Daemon(program, argv, self.folder / f"{program}.log", prefix=prefix)

    def _own(self, user: str) -> str:
        """The kubeconfig of a part of the control plane; Kubernetes knows what each may do."""
        return str(self.pki.kubeconfig(self.folder / f"{user}.kubeconfig", self.api.server, f"system:{user}"))

    def _etcd_flags(self) -> list[str]:
        (port,) = free_ports(1)
        peers = f"http://127.0.0.1:{port}"
        return [
            "--data-dir", str(self.folder / "etcd"), "--unsafe-no-fsync", "--log-level", "warn",
            "--listen-client-urls", self.setting.etcd, "--advertise-client-urls", self.setting.etcd,
            "--listen-peer-urls", peers, "--initial-advertise-peer-urls", peers,
            "--initial-cluster", f"default={peers}",
        ]  # fmt: skip

    def _controller_manager_flags(self) -> list[str]:
        flags: dict[str, object] = {
            "kubeconfig": self._own("kube-controller-manager"),
            "use-service-account-credentials": "true",
            "service-account-private-key-file": self.setting.service_account_key,
            "root-ca-file": self.pki.ca,
            "cluster-signing-cert-file": self.pki.ca,
            "cluster-signing-key-file": self.pki.ca_key,
            **({"allocate-node-cidrs": "true", "cluster-cidr": POD_CIDR} if self._pod_cidrs else {}),
            "service-cluster-ip-range": SERVICE_CIDR,
        }
        if self._lease_s is not None:
            flags |= {"node-monitor-grace-period": f"{self._lease_s}s", "node-monitor-period": "1s"}
        return [*(f"--{name}={value}" for name, value in flags.items()), *ALONE]


@contextlib.contextmanager
def control_plane(
    folder: Path, programs: Path, pki: ClusterPki, *,
    address: str, nodes: Iterable[str], prefix: Sequence[str] = (), egress: str | None = None, pod_cidrs: bool = True,
    endpoint_routing: bool = False, lease_s: int | None = None,
) -> Iterator[ControlPlane]:  # fmt: skip
    """A control plane that is not started yet; it is ended at the end.

    Args:
        folder: For its data and logs; made here.
        programs: Of `build.programs`.
        pki: The cluster's.
        address: Of the API server.
        nodes: Their names.
        prefix: See `Setting`.
        egress: See `ApiServer`.
        pod_cidrs: Whether nodes are given a `podCIDR` each.
        endpoint_routing: See `Setting`.
        lease_s: After how many seconds of silence a node and its pods are not ready any more; None: as by default.
    """
    folder.mkdir()
    (folder / "service-account.key").write_bytes(_rsa_key())
    (port,) = free_ports(1)
    setting = Setting(
        programs=programs, pki=pki, address=address, etcd=f"http://127.0.0.1:{port}",
        service_account_key=folder / "service-account.key", nodes=tuple(nodes), prefix=prefix,
        endpoint_routing=endpoint_routing,
    )  # fmt: skip
    made = ControlPlane(folder, setting, egress, pod_cidrs=pod_cidrs, lease_s=lease_s)
    try:
        yield made
    finally:
        made.close()


def _rsa_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )  # fmt: skip
