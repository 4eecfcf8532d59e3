"""A kubelet API that makes a plain Linux box look like one pod: a shell, systemd units and log files."""

from __future__ import annotations

from edge_agent.hostkubelet.server import HostKubelet
from edge_agent.hostkubelet.settings import HostSettings, SettingsError
from edge_agent.hostkubelet.spawn import unblock_signals_of_commands

__all__ = ["HostKubelet", "HostSettings", "SettingsError", "unblock_signals_of_commands"]
