"""Reads addresses of servers, as people write them, and says which lead to the machine itself."""

from __future__ import annotations

import ipaddress

from tunnel.core.wire.host_port import split_host_port


def split_address(address: str) -> tuple[str, int]:
    """Returns the host and the port of `host:port` or `[2001:db8::1]:port`; the host is without brackets.

    Raises:
        ValueError: it is no address; the text says what is expected.
    """
    bare, port = split_host_port(address)
    bracketed = address.startswith("[")
    good_host = bare and (bracketed or ":" not in bare) and not any(c in bare for c in "/[]% \t\r\n")
    if not (good_host and port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"{address!r} is not an address: host:port, 192.0.2.1:port or [2001:db8::1]:port")
    return bare, int(port)


def is_loopback(host: str) -> bool:
    """Returns whether an address, or the name `localhost`, leads to this machine itself."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
