"""Parses the `host:port` that a client asks for, as text: what can be said of it without knowing any agent."""

from __future__ import annotations

import ipaddress
import re
from typing import NamedTuple

from cloud_server.kubernetes.objects import Address
from cloud_server.routing.route import Route
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.faults import KUBELET_BY_CONNECT, NAME_INVALID
from tunnel.core.wire.names import OLD_KUBELET, is_agent_name, is_service_name
from tunnel.core.wire.target import ServiceTarget, TcpTarget
from tunnel.core.wire.target_rule import MAX_PORT, is_dns_name

SUFFIX = ".longline"
FORMS = "write <agent>:<port>, <agent>:<service>, or <host>.<agent>.longline:<port> for a host behind an agent"
_PORT = re.compile(r"[0-9]{1,5}")


class Authority(NamedTuple):
    """The host and port that a client asked for."""

    host: str
    """The host, in lower case, without brackets or a trailing dot."""
    port: int
    """The port; 0 when `route` is to a service that has none."""
    address: Address | None = None
    """The host as an address; None when it is a name."""
    route: Route | None = None
    """The route, when the name itself says which agent and what there; None when it does not."""


def agent_meant(name: str) -> str:
    """Returns the agent in whose network a target is meant, from the name that a client gave beside its token.

    `site-a.longline` makes 127.0.0.1:6443 that of site-a's box. For any other name the result is empty: then the target
    says it all.
    """
    name = name.lower()
    agent = name.removesuffix(SUFFIX)
    return agent if agent != name and is_agent_name(agent) else ""


def parse_authority(authority: str) -> Authority:
    """Parses a `host:port`.

    A host behind an agent is a DNS name or an IPv4 address as it is (`10.1.0.9.box-7.longline`), or an IPv6 address
    with `-` for `:` (`fd00--9.box-7.longline`).

    Raises:
        OpenRefused: UNKNOWN_AGENT; it has no form that is known here, and the text says which there are. NOT_ALLOWED;
            the service has a front end of its own.
    """
    host, _, port_text = authority.rpartition(":")
    host = host.lower().removesuffix(".")
    if is_service_name(port_text) and is_agent_name(host):
        if port_text == OLD_KUBELET:
            raise OpenRefused(
                "a kubelet is reached through the fleet API, not by CONNECT", Code.NOT_ALLOWED, KUBELET_BY_CONNECT
            )
        return Authority(host, 0, route=Route(host, ServiceTarget(port_text)))
    port = _port(port_text)
    if (address := _address(host)) is not None:
        return Authority(str(address), port, address=address)
    behind, _, agent = host.removesuffix(SUFFIX).rpartition(".")
    if host.endswith(SUFFIX) and behind and is_agent_name(agent):
        return Authority(host, port, route=Route(agent, TcpTarget(_host_behind(behind), port)))
    if host.endswith(SUFFIX) or not is_dns_name(host):
        raise OpenRefused(f"no host of that name; {FORMS}", Code.UNKNOWN_AGENT, NAME_INVALID)
    return Authority(host, port)


def parse_target(authority: str) -> TcpTarget:
    """Parses a `host:port` that is meant in an agent's own network.

    Raises:
        OpenRefused: UNKNOWN_AGENT; it is none.
    """
    host, _, port_text = authority.rpartition(":")
    host = host.lower().removesuffix(".")
    port = _port(port_text)
    if (address := _address(host)) is not None:
        return TcpTarget(str(address), port)
    if not is_dns_name(host):
        raise OpenRefused("no host of that name", Code.UNKNOWN_AGENT, NAME_INVALID)
    return TcpTarget(host, port)


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or not 0 < int(text) <= MAX_PORT:
        raise OpenRefused(f"no port in the name; {FORMS}", Code.UNKNOWN_AGENT, NAME_INVALID)
    return int(text)


def _address(host: str) -> Address | None:
    """Returns the address that a host is; None for a name. Only IPv6 stands in brackets, and always does."""
    bracketed = host.startswith("[") and host.endswith("]")
    if not bracketed and "." not in host:  # an agent's name, as a rule: that it is no address costs 3 us to find out
        return None
    try:
        return ipaddress.IPv6Address(host[1:-1]) if bracketed else ipaddress.IPv4Address(host)
    except ValueError:
        return None


def _host_behind(text: str) -> str:
    if "--" in text or text.count("-") == 7:
        try:
            return str(ipaddress.IPv6Address(text.replace("-", ":")))
        except ValueError:
            pass
    if not is_dns_name(text):
        raise OpenRefused(f"no host of that name; {FORMS}", Code.UNKNOWN_AGENT, NAME_INVALID)
    return text
