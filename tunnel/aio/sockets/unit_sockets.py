"""The listening sockets of a socket unit (systemd.socket(5)): they are there before the daemon, and after its end.

The service manager goes on listening on them itself. So each is used through a copy, which a listener may close and
which can be had again; nobody else can be bound there meanwhile. Who connects while the daemon starts anew waits in the
kernel's queue.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address

import structlog

from tunnel.aio.process.handed import Handed, descriptor_name
from tunnel.aio.sockets.listening import Address, ListeningSockets, fits, listens
from tunnel.core.wire.faults import HANDED_LISTENER_UNUSED
from tunnel.core.wire.host_port import split_host_port

_log = structlog.get_logger("tunnel.listener")


class UnitSockets(ListeningSockets):
    """The sockets of units, by the name of their listener (`FileDescriptorName=`) and by their address.

    A listener may have several addresses, and takes those of a unit and opens the rest.
    """

    def __init__(self, handed: Iterable[Handed] = ()) -> None:
        """Takes what was handed."""
        super().__init__()
        self._of_units = [(one.name, socket.socket(fileno=one.descriptor)) for one in handed]

    def tell_unused(self, listener: str, addresses: Sequence[str]) -> None:
        """Logs which sockets of a listener are at none of these addresses, `host:port`. Who connects there waits in
        vain, since the service manager listens and nobody accepts.

        Where a name stands in the place of an address, nothing is known of it and nothing is said.
        """
        wanted = list(_numeric(addresses))
        if len(wanted) < len(addresses):
            return
        for name, sock in self._of_units:
            host, port, *_ = sock.getsockname() if sock.family in (socket.AF_INET, socket.AF_INET6) else ("", 0)
            if name != descriptor_name(listener):
                reason = f"only those of {descriptor_name(listener)} are taken (FileDescriptorName=)"
            elif (host, port) not in wanted:
                reason = f"{listener} has no address {host}:{port}"
            else:
                continue
            _log.warning(
                "nobody accepts at a socket of a socket unit",
                code=HANDED_LISTENER_UNUSED.code,
                descriptor=name,
                reason=reason,
            )

    def close(self) -> None:
        """Closes what was handed. Copies that are in use stay."""
        for _, sock in self._of_units:
            sock.close()
        self._of_units.clear()

    # Internal

    def _claim(self, listener: str, addresses: Sequence[Address]) -> dict[Address, socket.socket]:
        name = descriptor_name(listener)
        claimed: dict[Address, socket.socket] = {}
        for of, sock in self._of_units:
            if of == name and listens(sock):
                fitting = (one for one in addresses if one not in claimed and fits(sock, one))
                if (address := next(fitting, None)) is not None:
                    claimed[address] = sock.dup()
        return claimed

    def _give_back(self, _listener: str, claimed: Iterable[socket.socket]) -> None:
        for sock in claimed:
            sock.close()


# Internal


def _numeric(addresses: Iterable[str]) -> Iterator[tuple[str, int]]:
    for address in addresses:
        host, port = split_host_port(address)
        try:
            yield str(ip_address(host)), int(port)
        except ValueError:
            continue
