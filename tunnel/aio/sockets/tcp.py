"""TCP sockets that reset when they are closed, from their first moment on; only what ended in order ends with FIN.

A FIN promises that all bytes arrived, and a kernel sends one for whatever socket a dead process leaves behind. So every
socket of ours has `SO_LINGER` on with 0 seconds (socket(7): close sends RST and drops what is unsent): a listening
one hands it down to what it accepts, before anybody could set it there; one that dials has it before it connects. It is
taken back in one place, `end_in_order`, when all was handed to the kernel and only the close itself is left.

Unix sockets have no RST: their peer sees an end. gRPC's sockets are its own, and its streams cannot end unseen.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import os
import select
import socket
import struct
from collections.abc import Callable
from typing import TypeVar

_RESET = struct.pack("ii", 1, 0)
"""struct linger {on, 0 s}: close drops what is unsent and sends RST."""
_DELIVER = struct.pack("ii", 0, 0)
"""struct linger {off}: close delivers what was written, then FIN."""

P = TypeVar("P", bound=asyncio.BaseProtocol)


def reset_when_closed(sock: socket.socket) -> None:
    """Makes a socket that will listen or connect end in a reset, also when the process dies."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


def end_in_order(transport: asyncio.Transport) -> None:
    """Makes a socket whose directions both ended as they should be closed with FIN.

    Its protocol's `connection_lost` must call it: what the transport still held has gone to the kernel by then, and the
    socket is closed right afterwards. Any earlier, the death of the process would make an end of what is not all.
    """
    _linger(transport, _DELIVER)


def abort_with_reset(transport: asyncio.Transport) -> None:
    """Closes a transport so that its peer sees RST, never a clean end."""
    _linger(transport, _RESET)
    transport.abort()


async def connect_tcp(factory: Callable[[], P], host: str, port: int) -> P:
    """Connects to the first address of a host that takes the connection, and returns the protocol that `factory` made.

    Cancelled, it leaves no socket behind.

    Raises:
        OSError: no address takes it; the error is that of the last one.
    """
    loop = asyncio.get_running_loop()
    failure = OSError(f"{host} has no address")
    for family, address in _literal(host, port) or await _looked_up(host, port):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            reset_when_closed(sock)
            await _connect(sock, address)
            _, protocol = await loop.create_connection(factory, sock=sock)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return protocol
    raise failure


# Internal


def _literal(host: str, port: int) -> list[tuple[int, object]]:
    """Returns the family and socket address of a host that is an address; empty for a name, or one with a scope."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return []
    if address.version == 4:
        return [(socket.AF_INET, (host, port))]
    return [(socket.AF_INET6, (host, port, 0, 0))] if "%" not in host else []


async def _looked_up(host: str, port: int) -> list[tuple[int, object]]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]


async def _connect(sock: socket.socket, address: object) -> None:
    """Connects a socket. The event loop's own way would forget the interface of a link-local address."""
    number = sock.connect_ex(address)  # type: ignore[arg-type]  # of getaddrinfo, whatever it is
    if number == errno.EINPROGRESS:
        if not _writable(sock):  # on the box itself it is connected by now
            await _until_writable(sock)
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number:
        raise OSError(number, os.strerror(number))


async def _until_writable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    settled: asyncio.Future[None] = loop.create_future()
    loop.add_writer(sock, _settle, settled)
    try:
        await settled
    finally:
        loop.remove_writer(sock)


def _writable(sock: socket.socket) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLOUT)
    return bool(poll.poll(0))


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _linger(transport: asyncio.Transport, value: bytes) -> None:
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX and sock.fileno() != -1:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, value)
