"""Tells systemd how the daemon stands (sd_notify(3)); does nothing where systemd did not start it."""

from __future__ import annotations

import os
import socket
import threading
import time

import structlog

from tunnel.core.wire.faults import SYSTEMD_NOT_TOLD

PATIENCE_S = 60.0
"""How long a state waits while systemd's queue is full; a start that is not told within 90 s is ended by default."""

_log = structlog.get_logger("tunnel.systemd")


def notify(state: str) -> None:
    """Send one datagram, e.g. `READY=1` or `STOPPING=1`, to the socket that NOTIFY_SOCKET names."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # in Linux' abstract namespace
        address = "\0" + address[1:]
    try:
        with _sender() as sender:
            sender.setblocking(False)
            sender.sendto(state.encode(), address)
    except BlockingIOError:
        # A busy systemd: READY=1 must not be lost, and the event loop must not wait.
        threading.Thread(target=_wait_and_send, args=(state, address), name="sd_notify", daemon=True).start()
    except OSError as error:
        _log.warning("systemd could not be told", code=SYSTEMD_NOT_TOLD.code, state=state, reason=str(error))


def notify_reloading() -> None:
    """Say that the configuration is being read again; `READY=1` ends it. With the time that `Type=notify-reload` needs:
    without it a late message would be taken for the answer to the next reload.
    """
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def extend_timeout(seconds: float) -> None:
    """Ask for so much more time for the start, the reload or the stop that is going on, from now."""
    notify(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")


def _wait_and_send(state: str, address: str) -> None:
    try:
        with _sender() as sender:
            sender.settimeout(PATIENCE_S)
            sender.sendto(state.encode(), address)
    except OSError as error:
        _log.warning("systemd could not be told", code=SYSTEMD_NOT_TOLD.code, state=state, reason=str(error))


def _sender() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
