"""What the machine must have to run Kubernetes here, and whether it has it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.e2e.cluster import build
from tests.support.netns import missing_for_namespaces

PACKAGES = "containerd runc containernetworking-plugins busybox-static iptables nftables iproute2"
"""Of Debian and Ubuntu."""
COMMANDS = ("containerd", "ctr", "runc", "busybox", "iptables", "nft", "ip", "nsenter", "unshare", "setpriv", "mount")
CNI_FOLDERS = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
CNI_PLUGINS = ("bridge", "host-local", "loopback", "portmap")


def missing() -> str:
    """Why Kubernetes cannot run here, for people; an empty string when it can."""
    if os.geteuid() != 0:
        return "a real Kubernetes needs root"
    absent = [name for name in COMMANDS if shutil.which(name) is None]
    if cni_folder() is None:
        absent.append("the CNI plugins")
    if absent:
        return f"not installed: {', '.join(absent)} (apt-get install {PACKAGES})"
    return missing_for_namespaces() or build.why_not()


def cni_folder() -> Path | None:
    """Where the plugins are that connect a pod to its node."""
    for folder in CNI_FOLDERS:
        if all((folder / name).exists() for name in CNI_PLUGINS):
            return folder
    return None
