"""Tells systemd how the daemon stands (sd_notify(3)), and leaves it sockets to keep over a restart.

Nothing is done where systemd did not start the daemon.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from array import array
from collections.abc import Sequence

import structlog

from tunnel.core.wire.faults import SYSTEMD_NOT_TOLD

PATIENCE_S = 60.0
"""Seconds that a state waits while systemd's queue is full; by default it ends a start that is not told within 90 s."""

_log = structlog.get_logger("tunnel.systemd")


def notify(state: str, descriptors: Sequence[int] = ()) -> None:
    """Sends one datagram, such as `READY=1`, to the socket that NOTIFY_SOCKET names, with descriptors."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # in Linux' abstract namespace
        address = "\0" + address[1:]
    try:
        with _sender() as sender:
            sender.setblocking(False)
            _send(sender, state, descriptors, address)
    except BlockingIOError:
        # A busy systemd: READY=1 must not be lost, and the event loop must not wait. The descriptors may be closed by
        # the time that they are sent.
        own = [os.dup(descriptor) for descriptor in descriptors]
        threading.Thread(target=_wait_and_send, args=(state, own, address), name="sd_notify", daemon=True).start()
    except OSError as error:
        _log.warning("systemd could not be told", code=SYSTEMD_NOT_TOLD.code, state=state, reason=str(error))


def notify_reloading() -> None:
    """Says that the configuration is being read again; `READY=1` ends it.

    It says the time too, which `Type=notify-reload` needs: without it a late message would be taken for the answer to
    the next reload.
    """
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def keeps_descriptors() -> bool:
    """Returns whether the service manager keeps sockets for the next start (FileDescriptorStoreMax=).

    systemd sets FDSTORE since version 254; our unit sets it for older ones, too.
    """
    limit = os.environ.get("FDSTORE", "")
    return bool(os.environ.get("NOTIFY_SOCKET")) and limit.isascii() and limit.isdigit() and int(limit) > 0


def keep_descriptor(name: str, descriptor: int) -> None:
    """Gives the service manager a descriptor to keep under a name. A manager that has it already does nothing.

    It is in LISTEN_FDS of the next start, and of one after a crash.
    """
    notify(f"FDSTORE=1\nFDNAME={name}", [descriptor])


def forget_descriptors(name: str) -> None:
    """Makes the service manager close what it keeps under a name."""
    notify(f"FDSTOREREMOVE=1\nFDNAME={name}")


# Internal


def _wait_and_send(state: str, descriptors: Sequence[int], address: str) -> None:
    try:
        with _sender() as sender:
            sender.settimeout(PATIENCE_S)
            _send(sender, state, descriptors, address)
    except OSError as error:
        _log.warning("systemd could not be told", code=SYSTEMD_NOT_TOLD.code, state=state, reason=str(error))
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _send(sender: socket.socket, state: str, descriptors: Sequence[int], address: str) -> None:
    # Not `socket.send_fds`, which takes an address and leaves it out.
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", descriptors))] if descriptors else []
    sender.sendmsg([state.encode()], rights, 0, address)


def _sender() -> socket.socket:
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
