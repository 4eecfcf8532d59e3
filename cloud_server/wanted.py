"""Says which listeners a configuration wants, by name: what is compared when it is replaced by another."""

from __future__ import annotations

from typing import Final

from cloud_server.config import ForwardConfig, ServerConfig
from cloud_server.listeners import Place

CONNECT_UNIX: Final = "connect-unix"
CONNECT: Final = "connect"
CONNECT_KUBECTL: Final = "connect-kubectl"
SOCKS: Final = "socks"
FLEET: Final = "fleet"
METRICS: Final = "metrics"


def places(config: ServerConfig) -> dict[str, Place]:
    """Returns where everything for clients listens, by the name of the listener."""
    wanted: dict[str, Place] = {}
    if config.connect.unix is not None:
        wanted[CONNECT_UNIX] = Place(path=config.connect.unix)
    for name, listen in (
        (CONNECT, config.connect.listen),
        (CONNECT_KUBECTL, config.connect.listen_kubectl),
        (SOCKS, config.socks.listen),
        (FLEET, config.fleet.listen),
        (METRICS, config.metrics.listen),
    ):
        if listen is not None:
            wanted[name] = Place(address=listen)
    return wanted | {name: Place(address=one.listen) for name, one in forwards(config).items()}


def forwards(config: ServerConfig) -> dict[str, ForwardConfig]:
    """Returns the static forwards by the names of their listeners."""
    named: dict[str, ForwardConfig] = {}
    for one in config.forward:
        name, number = f"forward {one.listen}", 1
        while name in named:  # port 0, a free one, may be wanted more than once
            number += 1
            name = f"forward {one.listen} ({number})"
        named[name] = one
    return named
