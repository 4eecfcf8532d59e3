"""Tells systemd how the daemon stands (sd_notify(3)); does nothing where systemd did not start it."""

from __future__ import annotations

import os
import socket

import structlog

_log = structlog.get_logger("tunnel.systemd")


def notify(state: str) -> None:
    """Send one datagram, e.g. `READY=1` or `STOPPING=1`, to the socket that NOTIFY_SOCKET names."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # in Linux' abstract namespace
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), address)
    except OSError as error:
        _log.warning("systemd could not be told", state=state, reason=str(error))
