"""What is still alive: the loop's tasks, and the process's sockets, files, pipes and terminals.

The descriptors that event loops and gRPC keep for themselves (epoll, eventfd, unnamed socket pairs) are left out: they
are made on first use and stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from socket import AF_UNIX

import psutil

NOT_COUNTED = ("anon_inode:", "/proc/", "/sys/", "/dev/null", "/dev/urandom")


def unfinished_tasks() -> list[str]:
    """The names of all tasks of the running loop but the calling one."""
    current = asyncio.current_task()
    return [f"task {task.get_name()} ({task.get_coro()})" for task in asyncio.all_tasks() if task is not current]


def open_descriptors() -> set[tuple[int, str]]:
    """Each descriptor of this process with what the kernel says it is joined to, as in `socket:[81234]`."""
    found: set[tuple[int, str]] = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            target = str(entry.readlink())
        except FileNotFoundError:  # the listing's own descriptor
            continue
        if not target.startswith(NOT_COUNTED):
            found.add((int(entry.name), target))
    return found


def describe(descriptors: Iterable[tuple[int, str]]) -> list[str]:
    """A line for people about each of the open `descriptors`, without the unnamed socket pairs."""
    wanted = dict(descriptors)
    if not wanted:
        return []
    for connection in psutil.Process().net_connections("all"):
        if connection.fd not in wanted:
            continue
        if connection.family == AF_UNIX:
            wanted[connection.fd] = f"unix socket {connection.laddr}" if len(connection.laddr) else ""
        else:
            # An end that there is not, a listener's other one, is an empty tuple.
            ends = " > ".join(f"{end.ip}:{end.port}" for end in (connection.laddr, connection.raddr) if len(end))
            wanted[connection.fd] = f"socket {ends} {connection.status}"
    return sorted(f"fd {fd}: {text}" for fd, text in wanted.items() if text)
