"""Reads from the operating system what the agent says of its box in Hello: shown to people, trusted by nobody."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from protos import tunnel_pb2
from tunnel.core.wire.limits import MAX_TEXT_BYTES

_GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
"""The names that Kubernetes has for machines that `uname` names otherwise."""


def describe(
    labels: Mapping[str, str], services: Iterable[str], facts: Iterable[tunnel_pb2.Fact] = ()
) -> tunnel_pb2.Node:
    """Returns what Hello says of the box. It blocks, but only on files of the kernel."""
    uname = platform.uname()
    return tunnel_pb2.Node(
        hostname=_text(uname.node),
        os_image=_os_image(),
        kernel=uname.release,
        architecture=_GO_ARCHITECTURES.get(uname.machine, uname.machine),
        machine_id=_read("/etc/machine-id"),
        addresses=_addresses(),
        labels=dict(labels),
        services=list(services),
        facts=facts,
        boot_time_s=_boot_time_s(),
        cpus=os.cpu_count() or 0,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )


def _text(value: str) -> str:
    """Returns text as the wire takes it: bytes of the system that are no UTF-8 become question marks."""
    return value.encode("utf-8", "replace").decode()[:MAX_TEXT_BYTES]


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _os_image() -> str:
    try:
        return _text(platform.freedesktop_os_release().get("PRETTY_NAME", ""))
    except (OSError, ValueError):  # there is none, or it is not in UTF-8
        return platform.system()


def _boot_time_s() -> int:
    uptime = _read("/proc/uptime").split(" ")[0]
    return int(datetime.now(UTC).timestamp() - float(uptime)) if uptime else 0


def _addresses() -> list[str]:
    """Returns the addresses that this box uses towards others: it asks the kernel for a route, and sends no packet."""
    found: list[str] = []
    for family, somewhere in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((somewhere, 9))
                found.append(probe.getsockname()[0])
        except OSError:
            continue
    return found
