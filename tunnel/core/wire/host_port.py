"""The two parts of a `host:port`, as far as that can be said without judging them."""

from __future__ import annotations


def split_host_port(text: str) -> tuple[str, str]:
    """Returns the host, without the brackets of an IPv6 address, and the port as it is written.

    The host is empty where the text has no colon: then all of it is the port. Nothing is checked.
    """
    host, _, port = text.rpartition(":")
    return (host[1:-1] if host.startswith("[") and host.endswith("]") else host), port
