"""What of a configuration would be down if the server ran now: for `cloud-server check`, which touches nothing."""

from __future__ import annotations

from collections.abc import Iterator

from cloud_server.config import ServerConfig
from tunnel.aio.operate.audit_file import STANDARD_OUTPUT
from tunnel.aio.sockets.binding import address_fault, path_fault


def outlook(config: ServerConfig) -> Iterator[str]:
    """A line for each part that could not come up. Whether a port is free is not asked: the server may have it."""
    for key, address in config.listeners():
        if fault := address_fault(address):
            yield f"{key}: {address}: {fault}"
    if config.connect.unix is not None and (fault := path_fault(config.connect.unix)):
        yield f"connect.unix: {config.connect.unix}: {fault}"
    if config.audit.destination != STANDARD_OUTPUT and (fault := path_fault(config.audit.file)):
        yield f"audit.file: {config.audit.file}: {fault}"
    if config.kubernetes.kubeconfig is not None:
        try:
            config.kubernetes.kubeconfig.open("rb").close()
        except OSError as error:
            yield f"kubernetes.kubeconfig: {config.kubernetes.kubeconfig}: {str(error.strerror).lower()}"
