"""What containerd, the kubelet and CNI are told on a node. Paths are the node's own: see `node_init.sh`."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.cluster import images

HOME = "/run/node"
"""Everything that is configured is in here."""
MANIFESTS = f"{HOME}/manifests"
KUBECONFIG = f"{HOME}/kubelet.kubeconfig"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
KUBELET_PORT = 10250

# restrict_oom_score_adj: root may lack CAP_SYS_RESOURCE, and runc then dies with "can't get final child's PID".
# native: works wherever a folder does, also where overlayfs is already below.
CONTAINERD = f"""version = 2
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.overlayfs", "io.containerd.snapshotter.v1.zfs",
]
[plugins."io.containerd.internal.v1.opt"]
path = "/var/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{images.PAUSE}"
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/run/cni"
conf_dir = "{HOME}/cni"
"""


def kubelet(cgroup: str, *, standalone: bool, lease_s: int | None = None) -> str:
    """The kubelet's configuration file.

    Args:
        cgroup: Below which it puts its pods.
        standalone: Whether it runs static pods only, and asks no API server who may do what: any certificate of the
            cluster's authority may do everything.
        lease_s: How long the node's lease lasts; None: as by default.
    """
    content: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": not standalone},
            "x509": {"clientCAFile": f"{HOME}/ca.crt"},
        },
        "authorization": {"mode": "AlwaysAllow" if standalone else "Webhook"},
        "tlsCertFile": f"{HOME}/kubelet.crt",
        "tlsPrivateKeyFile": f"{HOME}/kubelet.key",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "staticPodPath": MANIFESTS,
        "fileCheckFrequency": "1s",
        "syncFrequency": "5s",
        # So that whoever follows a log reads one file.
        "containerLogMaxSize": "1Gi",
        "volumePluginDir": "/var/lib/kubelet/plugins-exec",
        "resolvConf": "",
        "healthzPort": 0,
        # The machine has no systemd to ask, and may have either version of cgroups.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failCgroupV1": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        # What a full disk or little memory of the machine does to pods is no part of any test.
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "50Mi"},
        "imageGCHighThresholdPercent": 100,
    }
    if lease_s is not None:
        content["nodeLeaseDurationSeconds"] = lease_s
    return json.dumps(content, indent=1)  # which is YAML too


def kube_proxy(node: str, cluster_cidr: str | None) -> str:
    """kube-proxy's configuration file.

    Args:
        node: The name of its node.
        cluster_cidr: The network of all pods; None: there is no such thing.
    """
    content: dict[str, Any] = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": f"{HOME}/kube-proxy.kubeconfig"},
        "hostnameOverride": node,
        "clusterCIDR": cluster_cidr or "",
        # These are the whole machine's, not the node's.
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    return json.dumps(content)


def cni(pod_cidr: str) -> str:
    """A bridge for the pods of the node; towards the outside they hide behind the node's address."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "ipMasq": True,
        "hairpinMode": True,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": pod_cidr}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    plugins = [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]
    return json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": plugins}, indent=1)
