"""The names that CONNECT takes: `<agent>:<port or service>` and `<host>.<agent>.longline:<port>`."""

from __future__ import annotations

import ipaddress
import re

from tunnel.core.errors import Code, OpenRefused
from tunnel.core.names import KUBELET, is_agent_name, is_service_name
from tunnel.core.target import ServiceTarget, Target, TcpTarget
from tunnel.core.target_rule import MAX_PORT, is_dns_name

SUFFIX = ".longline"
LOCALHOST = "localhost"
FORMS = "write <agent>:<port>, <agent>:<service>, or <host>.<agent>.longline:<port> for a host behind an agent"
_PORT = re.compile(r"[0-9]{1,5}")


def parse_connect_name(authority: str) -> tuple[str, Target]:
    """The agent and the target there.

    A host behind an agent is a DNS name or an IPv4 address as it is (`10.1.0.9.box-7.longline`), or an IPv6 address
    with `-` for `:` (`fd00--9.box-7.longline`).

    Raises:
        OpenRefused: UNKNOWN_AGENT; it has no such form, and the text says which forms there are. NOT_ALLOWED; the
            service has a front end of its own.
    """
    host, _, port_text = authority.rpartition(":")
    if is_service_name(port_text) and is_agent_name(host.lower().removesuffix(".")):
        if port_text == KUBELET:
            raise OpenRefused("a kubelet is reached through the fleet API, not by CONNECT", Code.NOT_ALLOWED)
        return host.lower().removesuffix("."), ServiceTarget(port_text)
    if not _PORT.fullmatch(port_text) or not 0 < int(port_text) <= MAX_PORT:
        raise OpenRefused(f"no port in the name; {FORMS}", Code.UNKNOWN_AGENT)
    port = int(port_text)
    host = host.lower().removesuffix(".")
    if is_agent_name(host):
        return host, TcpTarget(LOCALHOST, port)
    behind, _, agent = host.removesuffix(SUFFIX).rpartition(".")
    if not host.endswith(SUFFIX) or not is_agent_name(agent) or not behind:
        raise OpenRefused(f"no agent of that name; {FORMS}", Code.UNKNOWN_AGENT)
    return agent, TcpTarget(_host_behind(behind), port)


def _host_behind(text: str) -> str:
    if "--" in text or text.count("-") == 7:
        try:
            return str(ipaddress.IPv6Address(text.replace("-", ":")))
        except ValueError:
            pass
    if not is_dns_name(text):
        raise OpenRefused(f"no host of that name; {FORMS}", Code.UNKNOWN_AGENT)
    return text
