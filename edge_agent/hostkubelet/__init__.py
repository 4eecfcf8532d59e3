"""A kubelet API that makes a plain Linux box look like one pod: a shell, systemd units and log files."""

from __future__ import annotations

from edge_agent.hostkubelet.server import HostKubelet
from edge_agent.hostkubelet.settings import HostSettings, SettingsError

__all__ = ["HostKubelet", "HostSettings", "SettingsError"]
