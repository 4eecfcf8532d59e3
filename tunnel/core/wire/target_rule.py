"""Parses and matches one rule of an allow-list, `host:ports`, as configurations spell it, without looking up any name.

A host is an address, a CIDR or a DNS name; ports are `22`, `80,443`, `8000-8999` or `*`. IPv6 stands in brackets:
`[fd00::/64]:443`. Names are compared as names here; what they resolve to is the business of whoever dials.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from tunnel.core.wire.target import MAX_HOST_BYTES, TcpTarget

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MAX_PORT = 65535
_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_PORTS = re.compile(r"\d{1,5}(-\d{1,5})?")


@dataclass(frozen=True, slots=True)
class TargetRule:
    """One rule of an allow-list. Exactly one of `network` and `name` is set."""

    network: Network | None
    name: str
    """Lower case, without a trailing dot; empty when the rule is about addresses."""
    ports: tuple[range, ...]
    text: str
    """The rule as it was written."""

    @classmethod
    def parse(cls, text: str) -> TargetRule:
        """Reads a rule from its text.

        Raises:
            ValueError: it is none; the text says what is wrong and what is allowed.
        """
        host, separator, ports = text.rpartition(":")
        if not separator or not host:
            raise ValueError(f"{text!r} has no port; write host:ports, such as 127.0.0.1:22 or 10.1.0.0/16:80,443")
        network, name = _parse_host(host)
        return cls(network, name, _parse_ports(ports), text)

    @property
    def single(self) -> TcpTarget | None:
        """Returns the one target that the rule covers; None when it covers several."""
        if len(self.ports) != 1 or len(self.ports[0]) != 1:
            return None
        if self.network is None:
            return TcpTarget(self.name, self.ports[0].start)
        if self.network.num_addresses != 1:
            return None
        return TcpTarget(str(self.network.network_address), self.ports[0].start)

    def matches_port(self, port: int) -> bool:
        """Returns whether the rule covers a port."""
        return any(port in ports for ports in self.ports)

    def matches_address(self, address: Address, port: int) -> bool:
        """Returns whether the rule covers an address and port; always False for a rule with a DNS name."""
        plain = normal_address(address)
        return self.network is not None and plain in self.network and self.matches_port(port)

    def matches_name(self, host: str, port: int) -> bool:
        """Returns whether the rule is for this very DNS name and covers the port.

        Case and a trailing dot do not matter.
        """
        return bool(self.name) and self.name == host.lower().rstrip(".") and self.matches_port(port)


def normal_address(address: Address) -> Address:
    """Returns an IPv4-mapped IPv6 address (`::ffff:10.0.0.1`) as the IPv4 address that the kernel will really dial.

    Any other address comes back as it is.
    """
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_dns_name(text: str) -> bool:
    """Returns whether a text has the form of a DNS name (RFC 1035 2.3.1, with `_` as service names have it)."""
    return len(text) <= MAX_HOST_BYTES and _NAME.fullmatch(text) is not None


# Internal


def _parse_host(host: str) -> tuple[Network | None, str]:
    bracketed = host.startswith("[") and host.endswith("]")
    inner = host[1:-1] if bracketed else host
    if ":" in inner and not bracketed:
        raise ValueError(f"write an IPv6 address in brackets: [{host}]")
    try:
        network = ipaddress.ip_network(inner)
    except ValueError as error:
        if "host bits set" in str(error):
            correct = ipaddress.ip_network(inner, strict=False)
            raise ValueError(f"{inner} has bits set behind its prefix; did you mean {correct}?") from None
        if bracketed or "/" in inner or _looks_numeric(inner) or not is_dns_name(inner):
            raise ValueError(f"{inner!r} is neither an address, a CIDR nor a DNS name") from None
        return None, inner.lower().rstrip(".")
    if bracketed and network.version == 4:
        raise ValueError(f"only IPv6 addresses stand in brackets, not {inner}")
    return _normal_network(network), ""


def _normal_network(network: Network) -> Network:
    mapped = normal_address(network.network_address)
    if network.version == 6 and mapped.version == 4 and network.prefixlen >= 96:
        return ipaddress.ip_network(f"{mapped}/{network.prefixlen - 96}")
    return network


def _looks_numeric(host: str) -> bool:
    """Returns whether a host is all digits and dots.

    `10.1.2` or `1.2.3.4.5` is a slip, not a name; the C library would even take the first for an address.
    """
    return all(part.isdigit() for part in host.rstrip(".").split("."))


def _parse_ports(text: str) -> tuple[range, ...]:
    if text == "*":
        return (range(1, MAX_PORT + 1),)
    return tuple(_parse_port_range(part.strip()) for part in text.split(","))


def _parse_port_range(text: str) -> range:
    if not _PORTS.fullmatch(text):
        raise ValueError(f"{text!r} is no port; write 22, 80,443, 8000-8999 or *")
    first, _, last = text.partition("-")
    low, high = int(first), int(last or first)
    if not 1 <= low <= high <= MAX_PORT:
        raise ValueError(f"{text!r} is out of range; ports are 1 to {MAX_PORT}, low-high")
    return range(low, high + 1)
