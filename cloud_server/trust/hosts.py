"""Reads the names and addresses of this server, as they were given to `cloud-server init`, or written there since."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from pathlib import Path

from tunnel.core.wire.faults import HOSTS_FILE_UNUSABLE, FaultError

HOSTS_FILE = "hosts"


class HostsMissing(FaultError):
    """The file cannot be used; the text says what it has to hold."""

    default_fault = HOSTS_FILE_UNUSABLE


def read_hosts(state: Path) -> list[str]:
    """Returns all of them, at least one.

    Raises:
        HostsMissing: there are none.
    """
    path = state / HOSTS_FILE
    try:
        hosts = path.read_text().split()
    except OSError as error:
        raise HostsMissing(f"{path} cannot be read: {error.strerror}; it has the names given to init") from error
    except UnicodeDecodeError as error:
        raise HostsMissing(f"{path} is no text in UTF-8; it has the names given to init, one a line") from error
    if not hosts:
        raise HostsMissing(f"{path} is empty; it has the names given to init, one a line")
    return hosts


def names_for(hosts: Iterable[str]) -> list[str]:
    """Returns what the server's certificate is for: these hosts, and the machine itself; each once, as certificates
    spell them.
    """
    return list(dict.fromkeys(map(_spelt, [*hosts, "localhost", "127.0.0.1", "::1"])))


def _spelt(host: str) -> str:
    try:
        # Without the interface of a link-local address: that is each machine's own, and no certificate has it.
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        return host.lower()
