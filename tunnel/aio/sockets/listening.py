"""The listening sockets of a daemon: those that it was started with, and those that are open, by listener's name.

They outlive the process in two ways: a process that takes over gets them (succession.py), or the service manager keeps
them until the next start. Whoever connects meanwhile waits in the kernel's queue and is not refused.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path

import structlog

from tunnel.aio.process.handed import Handed, descriptor_name
from tunnel.aio.process.sd_notify import forget_descriptors, keep_descriptor, keeps_descriptors
from tunnel.core.wire.faults import HANDED_LISTENER_UNUSED

_log = structlog.get_logger("tunnel.listener")

Address = tuple[int, object]
"""The family and the socket address, as `getaddrinfo` has them; of a unix socket its path as text."""


class ListeningSockets:
    """The listening sockets of one daemon; see the module."""

    def __init__(self, handed: Iterable[Handed] = (), *, managed: bool = False, holding: bool = False) -> None:
        """Takes over what was handed.

        Args:
            handed: listening sockets by the names of their listeners.
            managed: whether the service manager should keep them, if it can: whoever says so takes what it hands back.
            holding: whether another process still accepts on them; nothing is accepted until `release`.
        """
        self._handed = [(one.name, socket.socket(fileno=one.descriptor)) for one in handed]
        self._open: dict[socket.socket, str] = {}
        self._managed = managed and keeps_descriptors()
        self._holding = holding
        self._held: list[Callable[[], Awaitable[None]]] = []
        self._gone: set[str] = set()
        """The names under which the service manager must keep nothing any more, to be told at `release`."""
        self._handed_over = False

    # Public

    @property
    def outlive(self) -> bool:
        """Returns whether somebody has the sockets after this process, and with them the files of unix sockets."""
        return self._handed_over or self._holding or self._managed

    def open_now(self) -> list[Handed]:
        """Returns what is open, for a process that takes over."""
        return [Handed(name, sock.fileno()) for sock, name in self._open.items() if sock.fileno() != -1]

    def hand_over(self) -> None:
        """Notes that another process has them all."""
        self._handed_over = True

    async def release(self) -> None:
        """Begins to accept, since the process that accepted on them has let go."""
        self._holding = False
        for name in self._gone:
            forget_descriptors(name)
        self._gone.clear()
        for sock, name in self._open.items():
            self._keep(name, sock)
        held, self._held = self._held, []
        for begin in held:
            await begin()

    def drop_unclaimed(self, wanted: Iterable[str]) -> None:
        """Closes what was handed for listeners that are gone; `wanted` are the names of those that there are."""
        names = {descriptor_name(name) for name in wanted}
        for name, sock in [(name, sock) for name, sock in self._handed if name not in names]:
            self._drop(name, sock, "the configuration has no such listener")

    # Public - for listeners

    async def begin(self, start: Callable[[], Awaitable[None]]) -> None:
        """Starts to accept, now or as soon as nobody else does."""
        if self._holding:
            self._held.append(start)
        else:
            await start()

    def bind_tcp(self, listener: str, addresses: Sequence[Address]) -> list[socket.socket]:
        """Returns a socket for each of these addresses: the one that was handed for it, or a new one.

        What was handed for this listener and is none of them is closed first: it may be in the way.

        Raises:
            OSError: an address cannot be bound; nothing is kept then but what was handed.
        """
        handed = self._claim(listener, addresses)
        made: list[socket.socket] = []
        try:
            for family, address in addresses:
                if (family, address) not in handed:
                    sock = _bound(family, address)
                    if sock is not None:
                        made.append(sock)
        except OSError:
            for sock in made:
                sock.close()
            self._give_back(listener, handed.values())
            raise
        return [*handed.values(), *made]

    def claim_unix(self, listener: str, path: Path) -> socket.socket | None:
        """Returns the socket that was handed for a path; None when there is none."""
        return next(iter(self._claim(listener, [(socket.AF_UNIX, str(path))]).values()), None)

    def opened(self, listener: str, sock: socket.socket) -> None:
        """Notes that a listener has this socket now."""
        name = descriptor_name(listener)
        self._open[sock] = name
        if not self._holding:
            self._keep(name, sock)

    def closed(self, sock: socket.socket, *, for_good: bool) -> None:
        """Notes that a listener has this socket no more. With `for_good`, nobody will have it in this one's place."""
        name = self._open.pop(sock, None)
        if name is not None and for_good:
            self._forget(name)
            for other, its in self._open.items():
                if its == name:  # it was opened in the place of this one, and the manager forgets by name
                    self._keep(name, other)

    # Internal

    def _claim(self, listener: str, addresses: Sequence[Address]) -> dict[Address, socket.socket]:
        name = descriptor_name(listener)
        claimed: dict[Address, socket.socket] = {}
        mine = [sock for handed, sock in self._handed if handed == name]
        self._handed = [(handed, sock) for handed, sock in self._handed if handed != name]
        for sock in mine:
            bound = sock.getsockname()
            fitting = [one for one in addresses if fits(sock, one)] if listens(sock) else []
            free = [one for one in fitting if one not in claimed]
            if free:
                claimed[free[0]] = sock
            elif fitting:
                sock.close()  # the same socket once more: of a socket unit, and kept from the start before
            else:
                self._drop(name, sock, f"it is bound to {bound}, and the configuration says something else")
        return claimed

    def _give_back(self, listener: str, claimed: Iterable[socket.socket]) -> None:
        """Takes back what was claimed and is not used now."""
        self._handed += [(descriptor_name(listener), sock) for sock in claimed]

    def _drop(self, name: str, sock: socket.socket, reason: str) -> None:
        self._handed = [one for one in self._handed if one[1] is not sock]
        _log.warning(
            "a listening socket that was handed over is closed",
            code=HANDED_LISTENER_UNUSED.code,
            descriptor=name,
            reason=reason,
        )
        sock.close()
        self._forget(name)

    def _keep(self, name: str, sock: socket.socket) -> None:
        if self._managed and sock.fileno() != -1:
            keep_descriptor(name, sock.fileno())

    def _forget(self, name: str) -> None:
        if not self._managed:
            return
        if self._holding:
            self._gone.add(name)
        else:
            forget_descriptors(name)


def fits(sock: socket.socket, wanted: Address) -> bool:
    """Returns whether a socket is bound where it is wanted; port 0 is any port."""
    family, address = wanted
    bound: object = sock.getsockname()
    if sock.family != family or sock.type != socket.SOCK_STREAM:
        return False
    if isinstance(address, tuple) and isinstance(bound, tuple):
        return bound[0] == address[0] and address[1] in (0, bound[1])
    return bound == address


def listens(sock: socket.socket) -> bool:
    """Returns whether a socket listens."""
    return bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


# Internal


def _bound(family: int, address: object) -> socket.socket | None:
    """Returns a new socket; None where the machine has no such family, as for one of a name's addresses."""
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError:
        return None
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)  # type: ignore[arg-type]  # of getaddrinfo, whatever it is
    except OSError:
        sock.close()
        raise
    return sock
