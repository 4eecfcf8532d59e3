"""Says what of a configuration would be down if the agent ran now, or has no effect.

It is for `edge-agent check`, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edge_agent.config import AgentConfig, AutonomyConfig, HostConfig, KubeletConfig
from tunnel.aio.sockets.binding import address_fault


def outlook(config: AgentConfig) -> Iterator[str]:
    """Yields a line for each part that could not come up, or does nothing.

    Whether a port is free is not asked: the agent may have it. What does not answer is waited for some seconds.
    """
    yield from (f"{fault} (it would be down until then)" for fault in _down(config))
    if config.host == HostConfig():
        return
    if not config.host.offered:
        yield "host: nothing is offered: set exec = true, or name units or files"
    if not config.host.exec and (config.host.user, config.host.shell) != (HostConfig.user, HostConfig.shell):
        yield "host: user and shell are for commands, and there are none without exec = true"


# Internal


def _down(config: AgentConfig) -> Iterator[str]:
    for index, one in enumerate(config.listen):
        if fault := address_fault(one.listen):
            yield f"listen[{index}].listen: {one.listen}: {fault}"
    if config.host.offered:
        from edge_agent.hostkubelet.doubts import doubts  # see its package

        yield from (f"host.{doubt}" for doubt in doubts(config.host.settings(config.state)))
    if config.kubelet is not None:
        yield from _unreadable_files("kubelet", config.kubelet)
    if config.autonomy is not None:
        for address in config.autonomy.addresses:
            if fault := address_fault(address):
                yield f"autonomy.listen: {address}: {fault}"
        yield from _unreadable_files("autonomy", config.autonomy)
        if (token := config.autonomy.shared_token) is not None and (fault := _unreadable(token)):
            yield f"autonomy.shared_token: {token}: {fault}"


def _unreadable_files(section: str, named: KubeletConfig | AutonomyConfig) -> Iterator[str]:
    for key, path in (("client_cert", named.client_cert), ("client_key", named.client_key), ("ca", named.ca)):
        if fault := _unreadable(path):
            yield f"{section}.{key}: {path}: {fault}"


def _unreadable(path: Path) -> str:
    try:
        path.open("rb").close()
    except OSError as error:
        return str(error.strerror).lower()
    return ""
