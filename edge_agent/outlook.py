"""What of a configuration would be down if the agent ran now: for `edge-agent check`, which touches nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge_agent.config import AgentConfig
from edge_agent.hostkubelet.account import find_account
from edge_agent.hostkubelet.settings import SettingsError
from tunnel.aio.sockets.binding import address_fault


def outlook(config: AgentConfig) -> Iterator[str]:
    """A line for each part that could not come up. Whether a port is free is not asked: the agent may have it."""
    for index, one in enumerate(config.listen):
        if fault := address_fault(one.listen):
            yield f"listen[{index}].listen: {one.listen}: {fault}"
    if config.host.exec:
        try:
            find_account(config.host.user, config.host.shell)
        except SettingsError as error:
            yield f"host.{error}"
    if config.kubelet is not None:
        for key, path in (
            ("client_cert", config.kubelet.client_cert),
            ("client_key", config.kubelet.client_key),
            ("ca", config.kubelet.ca),
        ):
            if fault := _unreadable(path):
                yield f"kubelet.{key}: {path}: {fault}"


def _unreadable(path: Path) -> str:
    try:
        path.open("rb").close()
    except OSError as error:
        return str(error.strerror).lower()
    return ""
