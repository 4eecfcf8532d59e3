"""Leads components of the node to its API proxy, by their kubeconfigs, and back again.

Two lines of a kubeconfig change, and all others stay as they are: where its cluster is, and by which authority it is
known. What it was is kept beside it, byte for byte, and put back from there. Owner, group and permissions stay.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from tunnel.aio.process.files import NewFile, write_together
from tunnel.core.wire.faults import KUBECONFIG_NOT_SWITCHED, FaultError

BACKUP = ".before-longline"
"""What follows a kubeconfig's name in that of its backup."""
USUAL = (Path("/etc/kubernetes/kubelet.conf"),)
"""Where a kubelet's kubeconfig is, by kubeadm."""

_SERVER = re.compile(r"^(\s*(?:-\s+)?)server:[ \t]*(\S+)[ \t]*$", re.MULTILINE)
_AUTHORITY = re.compile(r"^(\s*(?:-\s+)?)certificate-authority(?:-data)?:.*$", re.MULTILINE)
_OTHERS = re.compile(r"^\s*(proxy-url|tls-server-name|insecure-skip-tls-verify):", re.MULTILINE)


class NotSwitched(FaultError):
    """A kubeconfig stays as it is; the text says why."""

    default_fault = KUBECONFIG_NOT_SWITCHED


def server_of(text: str) -> str:
    """Returns where a kubeconfig leads.

    Raises:
        ValueError: that cannot be told: it has no cluster, or several, or is not written line by line.
    """
    servers = _SERVER.findall(text)
    if len(servers) != 1:
        raise ValueError(f"{len(servers)} lines say `server:`, and one is needed")
    return str(servers[0][1]).strip("\"'")


def led_through(text: str, url: str, authority: Path) -> str:
    """Returns a kubeconfig that leads to a proxy.

    Args:
        text: the kubeconfig.
        url: of the proxy.
        authority: the file with the certificate that the proxy is known by.

    Raises:
        ValueError: it cannot be changed so.
    """
    server_of(text)
    if found := _OTHERS.search(text):
        raise ValueError(f"it has `{found[1]}:`, which would count for the proxy as well")
    if len(_AUTHORITY.findall(text)) > 1:
        raise ValueError("more than one line says `certificate-authority:`")
    changed = _SERVER.sub(lambda match: f"{match[1]}server: {url}", text)
    line = f"certificate-authority: {authority}"
    if _AUTHORITY.search(changed):
        return _AUTHORITY.sub(lambda match: f"{match[1]}{line}", changed)
    return _SERVER.sub(lambda match: f"{match[0]}\n{' ' * len(match[1])}{line}", changed)


def enable(path: Path, url: str, authority: Path) -> str | None:
    """Leads a kubeconfig through the proxy. Blocks.

    Returns:
        Where it led before; None when it leads through the proxy already.

    Raises:
        NotSwitched: it stays as it is.
    """
    path = path.resolve()  # a link stays one
    before = read_file(path)
    try:
        text = before.data.decode()
        server = server_of(text)
        if server == url:
            return None
        after = led_through(text, url, authority).encode()
    except ValueError as error:
        raise NotSwitched(f"{path} cannot be changed: {error}") from error
    write_files([replace(before, path=_backup(path)), replace(before, data=after)])
    return server


def disable(path: Path, url: str) -> str | None:
    """Puts a kubeconfig back. Blocks.

    Args:
        path: of the kubeconfig.
        url: of the proxy.

    Returns:
        Where it leads now; None when it did not lead through the proxy.

    Raises:
        NotSwitched: it stays as it is.
    """
    path = path.resolve()
    now = read_file(path).data
    try:
        if server_of(now.decode()) != url:
            return None
        before = read_file(_backup(path))
        authority = _AUTHORITY.search(now.decode())
        named = Path(authority[0].partition(":")[2].strip()) if authority is not None else Path()
        if led_through(before.data.decode(), url, named).encode() != now:
            raise ValueError(f"it was changed since: look at what differs from {_backup(path)}, and change it by hand")
        server = server_of(before.data.decode())
    except ValueError as error:
        raise NotSwitched(f"{path} cannot be put back: {error}") from error
    write_files([replace(before, path=path)])
    _backup(path).unlink(missing_ok=True)
    return server


def read_file(path: Path) -> NewFile:
    """Returns a file as it is: its bytes, permissions and owner.

    Raises:
        NotSwitched: it cannot be read.
    """
    try:
        about = path.stat()
        return NewFile(path, path.read_bytes(), about.st_mode & 0o777, (about.st_uid, about.st_gid))
    except OSError as error:
        raise NotSwitched(f"{path}: {error.strerror}") from error


def write_files(files: list[NewFile]) -> None:
    """Writes files, all or none.

    Raises:
        NotSwitched: they cannot be written.
    """
    try:
        write_together(files)
    except OSError as error:
        raise NotSwitched(f"{error.filename or files[-1].path}: {error.strerror}") from error


# Internal


def _backup(path: Path) -> Path:
    return path.with_name(path.name + BACKUP)
