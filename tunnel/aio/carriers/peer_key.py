"""Which connection is meant: the peer's address and port in one form, whether gRPC or the kernel tells of it."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from tunnel.core.wire.host_port import split_host_port

__all__ = ["PeerKey"]

_IPV4_BYTES = 4
_CLIENT_IPV6_BYTES = 8
_MAPPED = bytes(10) + b"\xff\xff"


class PeerKey(NamedTuple):
    """A peer's IP address, as the network has it, and its port."""

    ip: bytes
    port: int

    @classmethod
    def of_packed(cls, ip: bytes, port: int) -> PeerKey:
        """Returns the key of an address in 4 or 16 bytes; an IPv4 address within IPv6 is an IPv4 address."""
        return cls(ip.removeprefix(_MAPPED), port)

    @classmethod
    def of_text(cls, peer: str) -> PeerKey:
        """Returns the key of `ip:port`, as `readable_peer` gives it; of what is no IP address, one that no connection
        has.
        """
        host, port = split_host_port(peer)
        try:
            return cls.of_packed(ipaddress.ip_address(host.partition("%")[0]).packed, int(port))
        except ValueError:
            return cls(peer.encode(), 0)

    @property
    def client(self) -> bytes:
        """Returns what counts as one client: an IPv4 address, or an IPv6 /64, of which a client has 2^64 addresses."""
        return self.ip if len(self.ip) == _IPV4_BYTES else self.ip[:_CLIENT_IPV6_BYTES]

    @property
    def client_text(self) -> str:
        """Returns the same for people."""
        if len(self.client) == _IPV4_BYTES:
            return str(ipaddress.IPv4Address(self.client))
        return str(ipaddress.IPv6Network((self.client + bytes(_CLIENT_IPV6_BYTES), 64)))
