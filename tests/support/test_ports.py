"""Ports for tests: never one that the kernel, another process of tests or an earlier call may have."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from tests.support.ports import free_ports
from tests.support.processes import run_command

_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


def test_ports_differ_and_can_be_listened_on() -> None:
    ports = free_ports(250)
    assert len(set(ports)) == 250
    for port in ports:
        socket.create_server(("127.0.0.1", port)).close()


def test_the_kernel_gives_none_of_them_to_others() -> None:
    first, last = map(int, _EPHEMERAL.read_text().split())
    assert not [port for port in free_ports(20) if first <= port <= last]


def test_another_process_gets_others() -> None:
    ours = set(free_ports(150))
    code = "from tests.support.ports import free_ports; print(*free_ports(150))"
    theirs = set(map(int, run_command(sys.executable, "-c", code).split()))
    assert len(theirs) == 150
    assert not theirs & ours


def test_a_port_in_use_is_passed_over() -> None:
    (port,) = free_ports(1)
    with socket.create_server(("127.0.0.1", port + 1)):
        assert port + 1 not in free_ports(100)
