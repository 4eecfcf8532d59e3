"""Looks at the network plugin (CNI): whether it gives a pod an address without the API server.

A pod that starts again without the cloud needs a sandbox, and with that an address, from the plugin. Calico's own
addresses come from objects that it compares and swaps, which must never be answered from a copy.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_agent.autonomy.check.findings import Finding, good, warning

ABOUT = "network"
FOLDERS = (Path("/etc/cni/net.d"), Path("/var/lib/rancher/k3s/agent/etc/cni/net.d"))
"""Where its configuration is: containerd's and CRI-O's place, and that of K3s."""
_SUFFIXES = (".conf", ".conflist", ".json")
"""What a runtime reads of them (libcni `ConfFiles`); the first by name counts."""
_LOCAL = frozenset((
    "bandwidth", "bridge", "dhcp", "firewall", "host-device", "host-local", "ipvlan", "loopback", "macvlan", "portmap",
    "ptp", "sbr", "static", "tuning", "vlan", "vrf",
))  # fmt: skip
"""Plugins of containernetworking/plugins, none of which asks an API server."""
_NEED_THE_API = {
    "calico-ipam": (
        "Calico's IPAM takes each pod's address from the API server: without the cloud no pod gets a new sandbox",
        "use its host-local IPAM with the node's podCIDR, or count on running pods only",
    ),
    "calico": (
        "Calico asks the API server for each pod that gets a network",
        "try on a node what happens without the cloud before you count on it",
    ),
    "cilium-cni": (
        "Cilium's agent needs the API server to start: after a reboot without the cloud pods have no network",
        "count on running pods only, or try on a node what happens before you count on it",
    ),
    "flannel": (
        "flannel's daemon asks the API server at each boot for what its plugin reads (/run/flannel/subnet.env)",
        "lead flanneld through the proxy as well (--kubeconfig-file), and try a reboot without the cloud",
    ),
}


def network_plugin(folders: Sequence[Path] = FOLDERS) -> Iterator[Finding]:
    """Yields what is found of the plugin of this node. Blocks."""
    path = next((path for folder in folders for path in _configurations(folder)), None)
    if path is None:
        text = f"no network plugin is configured in {' or '.join(map(str, folders))}"
        yield warning(ABOUT, text, "its configuration must outlive a reboot: pods do not start without one")
        return
    try:
        kinds = list(dict.fromkeys(_kinds(json.loads(path.read_bytes()))))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        yield warning(ABOUT, f"{path} cannot be read: {error}", "see what the container runtime says of it")
        return
    if needy := next((kind for kind in _NEED_THE_API if kind in kinds), None):
        text, remedy = _NEED_THE_API[needy]
        yield warning(ABOUT, f"{path}: {text}", remedy)
    elif strange := [kind for kind in kinds if kind not in _LOCAL]:
        text = f"{path} has {', '.join(strange)}, of which it is not known whether it asks the API server"
        yield warning(ABOUT, text, "try on a node what happens without the cloud before you count on it")
    else:
        yield good(ABOUT, f"{path} has {', '.join(kinds)}, which ask no API server")


# Internal


def _configurations(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    except OSError:
        return []


def _kinds(content: Any) -> Iterator[str]:
    """Yields the programs that a configuration names: of its plugins, and of those that give the addresses."""
    for plugin in content.get("plugins", [content]):
        yield str(plugin.get("type", "a plugin without a type"))
        if kind := (plugin.get("ipam") or {}).get("type"):
            yield str(kind)
