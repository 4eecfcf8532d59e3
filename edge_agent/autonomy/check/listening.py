"""Looks at the addresses of the proxy: whether they are free, or the agent has them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_agent.autonomy.check.findings import Finding, fault, good, warning
from tunnel.aio.process.config import HostPort
from tunnel.aio.sockets.binding import address_fault, in_use

ABOUT = "address"
ANSWER_S = 3.0
"""Seconds that a proxy of this machine may take for a handshake."""


def listening(addresses: Sequence[HostPort], authority: Path) -> Iterator[Finding]:
    """Yields what is found at each address. Blocks.

    Args:
        addresses: those of the proxy, that of kubeconfigs first.
        authority: the file with the proxy's certificate, which may not be there yet.
    """
    for address in addresses:
        if trouble := address_fault(address):
            about = fault if address == addresses[0] else warning
            remedy = "see that its interface is made at boot: deploy/node/longline-address.service"
            yield about(ABOUT, f"{address} cannot be had: {trouble}", remedy)
        elif not in_use(address):
            yield good(ABOUT, f"{address} is free")
        elif trouble := proxy_fault(address, authority):
            remedy = "if it is a socket unit, start the agent; else see who it is (ss -ltnp), and take another port"
            yield fault(ABOUT, f"somebody listens at {address}, and does not answer as the agent ({trouble})", remedy)
        else:
            yield good(ABOUT, f"the agent answers at {address}")


def proxy_fault(address: HostPort, authority: Path) -> str:
    """Returns why the proxy is not what answers at an address; empty when it is. Blocks."""
    try:
        context = ssl.create_default_context(cafile=str(authority))
        with (
            socket.create_connection((address.host, address.port), ANSWER_S) as plain,
            context.wrap_socket(plain, server_hostname=address.host),
        ):
            return ""
    except OSError as error:  # ssl.SSLError is one
        return str(error)
