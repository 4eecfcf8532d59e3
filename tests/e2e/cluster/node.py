"""An edge node: containerd, a kubelet and, in a cluster, kube-proxy, in namespaces that end with the node."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.cluster import node_config, requirements, site
from tests.e2e.cluster.cgroups import cgroup, empty_cgroup
from tests.e2e.cluster.namespaces import Namespaces, NodeFailed
from tests.e2e.cluster.pki import MASTERS, ClusterPki
from tests.e2e.cluster.workplace import cgroup_name
from tests.support.netns import BoxNamespace
from tests.support.processes import Daemon
from tests.support.waits import Deadline

LOG_LINES = 6
"""Of each of its programs, beside a failed test."""
CONTAINERD_S = 20.0
KUBELET_S = 30.0


_POWER_CUT = """
for p in /proc/[0-9]*; do
  pid=${p#/proc/}
  [ $pid -ne 1 ] && [ $pid -ne $$ ] && [ "$(cat $p/comm 2>/dev/null)" != cat ] && kill -9 $pid 2>/dev/null
done
awk '$2 ~ "^(/run/netns|/run/containerd|/var/lib/kubelet|/run/k3s)" { print $2 }' /proc/mounts | sort -r | uniq |
  while read -r m; do umount -l "$m"; done
rm -rf /run/containerd/* /run/netns/*
for family in ip ip6; do nft delete table $family kube-proxy 2>/dev/null; done
for link in $(ip -o link | awk -F'[ :@]+' '{ print $2 }'); do
  case $link in cni0|veth*|kube-*) ip link del $link 2>/dev/null;; esac
done
true
"""
"""What does to a node what the loss of its power does. Its disk stays as it is."""
_FORGET_CONNECTIONS = """
import socket, struct
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as kernel:
    kernel.sendall(struct.pack("=IHHIIBBH", 20, 1 << 8 | 2, 5, 1, 0, 0, 0, 0))
    assert struct.unpack_from("=i", kernel.recv(4096), 16) == (0,)
"""
"""Empties the table of connections: IPCTNL_MSG_CT_DELETE of linux/netfilter/nfnetlink_conntrack.h. Who asked a Service
before kube-proxy had led it anywhere would otherwise be led nowhere again by the same port, for two minutes.
"""


class Node:
    """Use `node()`, which ends it and removes everything."""

    def __init__(
        self,
        name: str,
        folder: Path,
        namespaces: Namespaces,
        group: str,
        pki: ClusterPki,
        *,
        lease_s: int | None = None,
    ) -> None:
        self.name = name
        self.folder = folder
        self.namespaces = namespaces
        self.home = folder / "run" / "node"
        """/run/node, seen from outside."""
        self._cgroup = group
        self._pki = pki
        self._lease_s = lease_s
        self.containerd = self._daemon("containerd", "containerd", "--config", f"{node_config.HOME}/containerd.toml")
        self.kubelet: Daemon
        self.proxy: Daemon
        self.daemons = [self.containerd]

    def start(self, archive: Path) -> None:
        """Start containerd, with the images of an archive."""
        self._write("containerd.toml", node_config.CONTAINERD)
        self._write("ca.crt", self._pki.ca.read_text())
        for folder in ("cni", "manifests"):
            (self.home / folder).mkdir()
        hosts = [self.name, site.NODE_ADDRESS, "127.0.0.1"]
        self._pki.issue("kubelet", f"system:node:{self.name}", group="system:nodes", hosts=hosts, into=self.home)
        self.containerd.start()
        self._wait_for_containerd()
        (self.home / "images.tar").hardlink_to(archive)
        self.ctr("images", "import", "--snapshotter", "native", f"{node_config.HOME}/images.tar")

    def start_kubelet(self, *, kubeconfig: Path | None = None) -> None:
        """Start the kubelet; without a kubeconfig it runs static pods only."""
        config = node_config.kubelet(self._cgroup, standalone=kubeconfig is None, lease_s=self._lease_s)
        self._write("kubelet.yaml", config)
        argv = ["--config", f"{node_config.HOME}/kubelet.yaml", "--hostname-override", self.name]
        argv += ["--node-ip", site.NODE_ADDRESS]
        if kubeconfig is not None:
            self._write("kubelet.kubeconfig", kubeconfig.read_text())
            argv += ["--kubeconfig", node_config.KUBECONFIG]
        self.kubelet = self._start("kubelet", *argv)

    def start_proxy(self, kubeconfig: Path, cluster_cidr: str | None) -> None:
        """Start kube-proxy, which makes service addresses work on the node.

        Args:
            kubeconfig: Its own.
            cluster_cidr: The network of all pods; None: there is no such thing.
        """
        self._write("kube-proxy.kubeconfig", kubeconfig.read_text())
        self._write("kube-proxy.yaml", node_config.kube_proxy(self.name, cluster_cidr))
        self.proxy = self._start("kube-proxy", "--config", f"{node_config.HOME}/kube-proxy.yaml")

    def set_proxy_mode(self, mode: str) -> None:
        """Have kube-proxy's next start make rules of another kind: `iptables` or `nftables`. One that runs ends."""
        path = self.home / "kube-proxy.yaml"
        path.write_text(json.dumps({**json.loads(path.read_text()), "mode": mode}))

    def use_api_server(self, url: str) -> None:
        """Start the kubelet and kube-proxy anew, with another way to the API server; pods run on."""
        for name, daemon in (("kubelet", self.kubelet), ("kube-proxy", self.proxy)):
            path = self.home / f"{name}.kubeconfig"
            config = yaml.safe_load(path.read_text())
            config["clusters"][0]["cluster"]["server"] = url
            path.write_text(yaml.safe_dump(config))
            daemon.kill()
            daemon.start()

    def restart(self, *, proxy_token: str = "") -> None:
        """Start the kubelet and kube-proxy anew; pods run on.

        `proxy_token`: of kube-proxy's ServiceAccount, in the place of its certificate from now on.
        """
        if proxy_token:
            path = self.home / "kube-proxy.kubeconfig"
            config = yaml.safe_load(path.read_text())
            config["users"][0]["user"] = {"token": proxy_token}
            path.write_text(yaml.safe_dump(config))
        for daemon in (self.kubelet, self.proxy):
            daemon.kill()
            daemon.start()

    def power_cut(self) -> None:
        """End everything on the node at once, with what is gone after that: processes, mounts, links, rules,
        cgroups.
        """
        for daemon in self.daemons:
            daemon.kill()
        self.namespaces.run("sh", "-c", _POWER_CUT)
        # A kubelet that starts waits three seconds for each container whose cgroup it finds.
        empty_cgroup(self._cgroup.removeprefix("/"))
        for table in ("filter", "nat", "mangle"):
            for flag in ("-F", "-X"):
                self.namespaces.run("iptables", "-w", "-t", table, flag)
        for rule in site.NODE_RULES:
            self.namespaces.run("iptables", "-w", *rule.split())
        self.namespaces.run(sys.executable, "-c", _FORGET_CONNECTIONS)

    def boot(self, begin: Callable[[], None] = lambda: None) -> None:
        """Start what a node starts. `begin` is called when containerd is ready, before the kubelet is started."""
        seen = len(self.containerd.log_text())
        self.containerd.start()
        # It answers before it has found the pods of before, and a kubelet that asks for them meanwhile ends.
        self.containerd.wait_for_log("Start streaming server", CONTAINERD_S, after=seen)
        begin()
        for daemon in self.daemons[1:]:
            daemon.start()

    def set_pod_cidr(self, cidr: str) -> None:
        """Give the pods their network; the kubelet is not ready before."""
        self._write("cni/pods.conflist", node_config.cni(cidr))

    def add_static_pod(self, manifest: Mapping[str, Any]) -> None:
        """Have the kubelet run a pod that no API server knows of."""
        self._write(f"manifests/{manifest['metadata']['name']}.json", json.dumps(manifest))

    def client_certificate(self) -> dict[str, str]:
        """What `[kubelet]` of edge-agent.toml says for this one."""
        certificate, key = self._pki.issue("longline-agent", "longline-agent", group=MASTERS, into=self.home)
        return {"client_cert": str(certificate), "client_key": str(key), "ca": str(self.home / "ca.crt")}

    def ctr(self, *args: str) -> str:
        """Ask containerd, beside the kubelet's back."""
        return self.namespaces.run("ctr", "--namespace", "k8s.io", *args)

    def logs(self, lines: int = LOG_LINES) -> str:
        """The tails of its logs, for people."""
        return "\n".join(daemon.tail(lines) for daemon in self.daemons)

    def close(self) -> None:
        self.namespaces.close()
        for daemon in self.daemons:
            if daemon.running:
                daemon.wait()
            daemon.close()

    # Internal

    def _daemon(self, name: str, *argv: str) -> Daemon:
        return Daemon(
            f"{self.name} {name}",
            ["/usr/bin/env", *argv],
            self.folder / f"{name}.log",
            prefix=self.namespaces.enter,
            prefix_stays=True,
        )

    def _start(self, program: str, *args: str) -> Daemon:
        daemon = self._daemon(program, f"/run/programs/{program}", *args)
        self.daemons.append(daemon)
        return daemon.start()

    def _write(self, name: str, content: str) -> None:
        (self.home / name).write_text(content)

    def _wait_for_containerd(self) -> None:
        deadline = Deadline(CONTAINERD_S)
        while True:
            try:
                self.ctr("version")
            except NodeFailed as failed:
                if deadline.passed() or not self.containerd.running:
                    raise NodeFailed(f"{failed}\n{self.containerd.tail()}") from failed
                time.sleep(0.05)
            else:
                return


@contextmanager
def node(
    name: str, folder: Path, programs: Path, pki: ClusterPki, behind: BoxNamespace, *, lease_s: int | None = None
) -> Iterator[Node]:
    """A node plugged into a router, with nothing running yet; everything is gone at the end.

    `lease_s`: see `node_config.kubelet`.
    """
    folder.mkdir()
    cni = requirements.cni_folder()
    assert cni is not None
    with ExitStack() as stack:
        group = stack.enter_context(cgroup(cgroup_name(behind.index)))
        namespaces = stack.enter_context(Namespaces(folder, programs, cni))
        site.connect(namespaces, behind)
        made = Node(name, folder, namespaces, group, pki, lease_s=lease_s)
        stack.callback(made.close)
        yield made
