"""A real HAProxy before a server's ports, as load balancers are set up: it passes TCP and ends what is silent."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tests.support.ports import free_ports
from tests.support.tunnel import wait_until

PROGRAM = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")
_CONFIG = """
global
  log stdout format raw local0
  maxconn 500
  nbthread 1
defaults
  log global
  mode tcp
  option tcplog
  timeout connect 5s
  timeout client {idle_s}s
  timeout server {idle_s}s
"""
_PROXY = """
listen {name}
  bind 127.0.0.1:{port}
  server {name} 127.0.0.1:{to}
"""


def missing_for_a_balancer() -> str:
    """Why no balancer can be had here; empty when one can."""
    return "" if PROGRAM else "there is no haproxy"


class Balancer:
    """A running one. Use `balancer()`."""

    def __init__(self, ports: Mapping[str, int], log: Path) -> None:
        self.ports = ports
        """Where it listens, by the name of what is behind."""
        self._log = log

    def cut(self, name: str) -> int:
        """How many connections to `name` it has ended for their silence (HAProxy's `cD` and `sD`)."""
        lines = [line for line in self._log.read_text().splitlines() if f" {name} {name}/" in line]
        return sum(" cD " in line or " sD " in line for line in lines)


@contextlib.contextmanager
def balancer(folder: Path, behind: Mapping[str, int], idle_s: int) -> Iterator[Balancer]:
    """HAProxy before these ports of 127.0.0.1, with files in `folder`; `idle_s` is its patience with silence."""
    assert PROGRAM is not None
    ports = dict(zip(behind, free_ports(len(behind)), strict=True))
    proxies = [_PROXY.format(name=name, port=ports[name], to=to) for name, to in behind.items()]
    config, log = folder / "haproxy.cfg", folder / "haproxy.log"
    config.write_text(_CONFIG.format(idle_s=idle_s) + "".join(proxies))
    with log.open("wb") as file:
        process = subprocess.Popen(
            [PROGRAM, "-db", "-f", str(config)], stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        wait_until(lambda: _listens(ports.values()) or process.poll() is not None, "HAProxy listens")
        assert process.poll() is None, log.read_text()
        yield Balancer(ports, log)
    finally:
        process.kill()
        process.wait()


def _listens(ports: Iterable[int]) -> bool:
    listening = Path("/proc/net/tcp").read_text()
    return all(f"0100007F:{port:04X} 00000000:0000 0A" in listening for port in ports)
