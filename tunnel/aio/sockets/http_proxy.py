"""Finds the HTTP proxy that leads to a server, by the conventions of curl, and how it is asked; for all
that dials out.

The variables, and what stands in them, are those of curl 7.86 and later for a TLS connection: `https_proxy`,
`HTTPS_PROXY`, `all_proxy`, `ALL_PROXY` in this order, and the exceptions in `no_proxy` or `NO_PROXY`
(https://curl.se/docs/manpage.html#ENVIRONMENT). `http_proxy` is for plain HTTP, which nothing here speaks.
"""

from __future__ import annotations

import ipaddress
import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

from tunnel.core.wire.faults import PROXY_INVALID, FaultError
from tunnel.core.wire.spoken import printable

NO_PROXY = "none"
"""Stands in place of a URL for no proxy, whatever the environment says."""
VARIABLES = ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")
EXCEPTIONS = ("no_proxy", "NO_PROXY")
DEFAULT_PORT = 1080
"""The port of a proxy whose URL has none, as curl has it."""
MAX_ANSWER_BYTES = 16 * 1024
"""The longest answer of a proxy to CONNECT."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_HOST = re.compile(r"[A-Za-z0-9._:-]+")
_SEPARATORS = re.compile(r"[\s,]+")
MAX_SAID_CHARS = 120
"""How much of what a proxy says behind its status is told."""
_STATUS_LINE = re.compile(rb"HTTP/1\.[01] (\d{3}) ?([^\r\n]*)")


class ProxyUnusable(FaultError, ValueError):
    """What names the proxy cannot be used; the text says where it stands and what is wrong, and repeats no password."""

    default_fault = PROXY_INVALID


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpProxy:
    """A proxy that is asked with CONNECT."""

    host: str
    """The host, without brackets."""
    port: int
    user: str | None = None
    """The user; None when the proxy is asked without credentials."""
    password: str = field(default="", repr=False)
    source: str
    """The place that names it: `https_proxy`, `[cloud] proxy`, `--proxy`."""

    def __str__(self) -> str:
        return f"proxy {_host_port(self.host, self.port)} (from {self.source})"

    @property
    def url(self) -> str:
        """Returns the URL with the password, for gRPC and for a file that only its owner reads."""
        credentials = "" if self.user is None else f"{quote(self.user, '')}:{quote(self.password, '')}@"
        return f"http://{credentials}{_host_port(self.host, self.port)}"

    def request(self, host: str, port: int) -> bytes:
        """Returns what is sent to the proxy for a connection to a server."""
        target = _host_port(host, port)
        lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
        if self.user is not None:
            credentials = b64encode(f"{self.user}:{self.password}".encode()).decode()
            lines.append(f"Proxy-Authorization: Basic {credentials}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def refusal(self, head: bytes, host: str, port: int) -> str | None:
        """Returns why the proxy does not connect, by the head of its answer; None when it does."""
        status = _STATUS_LINE.match(head)
        if status is None:
            return f"the {self} does not answer as an HTTP proxy"
        code, text = int(status[1]), printable(status[2].decode("latin-1"), MAX_SAID_CHARS)
        if 200 <= code < 300:
            return None
        if code == 407:
            wants = "other credentials" if self.user is not None else "a user and a password"
            return f"the {self} answered 407 {text}: it wants {wants}, http://USER:PASSWORD@..."
        return f"the {self} refuses CONNECT {_host_port(host, port)}: {code} {text}"


def proxy_for(host: str, given: str | None, source: str, environment: Mapping[str, str]) -> HttpProxy | None:
    """Returns the proxy for a TLS connection; None when there is none, or the host is an exception.

    Args:
        host: the host that is dialled; name or address, without brackets.
        given: `http://[user:password@]host[:port]`, "none", or None for what the environment says. The exceptions of
            the environment hold for both, as they do for `curl --proxy`.
        source: the place that `given` comes from, for error texts.
        environment: the variables of the environment.

    Raises:
        ProxyUnusable: the proxy that would be used cannot be.
    """
    if given is None:
        source = next((name for name in VARIABLES if environment.get(name)), "")
        given = environment[source] if source else NO_PROXY
    exceptions = next((environment[name] for name in EXCEPTIONS if environment.get(name)), "")
    if given == NO_PROXY or is_exception(host, exceptions):
        return None
    return parse_proxy(given, source)


def parse_proxy(url: str, source: str) -> HttpProxy:
    """Reads a proxy's URL; one without a scheme is HTTP.

    Raises:
        ProxyUnusable: it cannot be used.
    """
    scheme = _SCHEME.match(url)
    kind = scheme[1].lower() if scheme else "http"
    if kind.startswith("socks"):
        raise ProxyUnusable(
            f"{source} names a SOCKS proxy ({kind}://); only an HTTP proxy can be used here, http://..."
        )
    if kind == "https":
        raise ProxyUnusable(f"{source} names a proxy behind TLS (https://); only http:// can be used here")
    if kind != "http":
        raise ProxyUnusable(f"{source} names a proxy of a kind that is not known ({kind}://); it must be http://")
    try:
        parts = urlsplit(url if scheme else f"http://{url}")
        host, port = parts.hostname, parts.port
        if not host or port == 0 or not _HOST.fullmatch(host):
            raise ValueError("no host")
    except ValueError as fault:
        # The text does not repeat it: there may be a password inside.
        wanted = "http://host:port or http://user:password@host:port"
        raise ProxyUnusable(f"{source} is no proxy: it must be like {wanted}") from fault
    return HttpProxy(
        host=host,
        port=port or DEFAULT_PORT,
        user=unquote(parts.username) if parts.username is not None else None,
        password=unquote(parts.password or ""),
        source=source,
    )


def is_exception(host: str, exceptions: str) -> bool:
    """Returns whether `no_proxy`, whose value is `exceptions`, names a host.

    The value is `*`, or a list with commas or blanks: names, which stand for what is below them too, with or without a
    dot in front; addresses; and networks such as 10.0.0.0/8. A port in it matches nothing.
    """
    if exceptions == "*":
        return True
    host = host.rstrip(".").lower()
    address = _address(host)
    for entry in filter(None, _SEPARATORS.split(exceptions)):
        if address is not None:
            if _holds(entry, address):
                return True
        elif (name := entry.rstrip(".").removeprefix(".").lower()) and (host == name or host.endswith(f".{name}")):
            return True
    return False


# Internal


def _host_port(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _holds(entry: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    try:
        return address in ipaddress.ip_network(entry.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return False
