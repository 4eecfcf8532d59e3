"""Checks and takes addresses and paths to listen on, and says in words why one cannot be had."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from tunnel.core.wire.faults import CANNOT_LISTEN, FaultError
from tunnel.core.wire.host_port import split_host_port

UNIX_MODE = 0o660
"""The mode of a socket for others of the daemon's group."""
PROBE_S = 1.0
"""Seconds that a listener that is there may take to accept, before we believe that it is there all the same."""
_HINTS = {
    errno.EACCES: "ports below 1024 need root or CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "no interface of this machine has it now",
    errno.EAFNOSUPPORT: "is IPv6 switched off here?",
}
"""What errors of the system mean for an address."""
_PATH_HINTS = {errno.ENOENT: "its folder does not exist", errno.EACCES: "who runs this may not write to its folder"}
"""What errors of the system mean for the path of a unix socket."""


class PathTaken(FaultError):
    """The path of a unix socket is not ours to use."""

    default_fault = CANNOT_LISTEN


class UnixPath:
    """The file of a unix socket that this process listens on."""

    def __init__(self, path: Path) -> None:
        status = path.stat()
        self._path = path
        self._identity = (status.st_dev, status.st_ino)

    def remove(self) -> None:
        """Removes the file, unless somebody else made another one there since."""
        with contextlib.suppress(FileNotFoundError):
            status = self._path.stat()
            if (status.st_dev, status.st_ino) == self._identity:
                self._path.unlink()


def bind_unix(path: Path, mode: int = UNIX_MODE, handed: socket.socket | None = None) -> tuple[socket.socket, UnixPath]:
    """Returns a unix socket at a path, which does not listen yet, and its file.

    One that nobody listens on is replaced. Blocks.

    `handed` was bound there by another process, and is taken unless its file is gone, without which nobody finds it.

    Raises:
        PathTaken: somebody listens there, or it is something else.
        OSError: it cannot be made.
    """
    if handed is not None:
        if path.is_socket():
            return handed, UnixPath(path)
        handed.close()
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX)
    try:
        # Nobody may connect between bind and chmod: the socket does not listen yet.
        sock.bind(str(path))
        path.chmod(mode)
        return sock, UnixPath(path)
    except OSError:
        sock.close()
        raise


def _remove_stale(path: Path) -> None:
    """Removes a socket that nobody listens on: one left behind by a process that was killed."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise PathTaken("something other than a socket is there")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PROBE_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
            return
        except TimeoutError:
            pass
    raise PathTaken("another process listens there")


def reason_of(error: OSError | PathTaken, *, path: bool = False) -> str:
    """Returns why an address, or a path, cannot be listened on: in the system's words, not asyncio's,
    without numbers.
    """
    if isinstance(error, PathTaken):
        return str(error)
    if error.errno is None or error.errno not in errno.errorcode:
        return str(error.strerror or error).lower()  # resolving has numbers of its own
    text = os.strerror(error.errno).lower()
    hint = (_PATH_HINTS if path else _HINTS).get(error.errno)
    return f"{text}: {hint}" if hint else text


def in_use(address: str) -> bool:
    """Returns whether somebody listens on an address, or on its port at every address; False if that is not known.

    It is for sockets that let others in beside them (SO_REUSEPORT): two strangers would share what comes in. Blocks
    while a name is resolved.
    """
    host, port = split_host_port(address)
    try:
        found = socket.getaddrinfo(host or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, proto, _, where in found:
            with socket.socket(family, kind, proto) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(where)
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def address_fault(address: str) -> str:
    """Returns why this machine cannot listen on `host:port` whatever the port; empty when it can.

    It takes no port for that.

    Blocks while a name is resolved.
    """
    host, _ = split_host_port(address)
    try:
        found = socket.getaddrinfo(host or None, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, proto, _, where in found:
            with socket.socket(family, kind, proto) as probe:
                probe.bind(where)
    except OSError as error:
        return reason_of(error)
    return ""


def path_fault(path: Path) -> str:
    """Returns why no unix socket can be made at a path whatever is there now; empty when it can."""
    if not path.parent.is_dir():
        return _PATH_HINTS[errno.ENOENT]
    return "" if os.access(path.parent, os.W_OK | os.X_OK) else _PATH_HINTS[errno.EACCES]
