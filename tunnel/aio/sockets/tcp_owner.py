"""Finds out who holds the other end of a TCP connection that begins and ends on this machine, from the kernel.

The kernel is asked for one connection by its two addresses (sock_diag(7), Linux 3.3, for which no rights are needed),
and knows those of the caller's own network namespace only. What else it may answer with is no owner:

1. A listener, whose port somebody in another namespace has chosen for their own: a look-up falls back to those.
2. A connection that is ended. Its port can be another process's by now, and its uid is told as 0.

A uid is that of whoever made the socket. One who hands it on to another process gives that away with it.
"""

from __future__ import annotations

import socket
import struct
import sys
from dataclasses import dataclass
from ipaddress import ip_address

ESTABLISHED = 1
"""TCP_ESTABLISHED in <net/tcp_states.h>."""
ANSWER_S = 1.0
"""Seconds that the kernel may take, which answers while it is asked."""

_SOCK_DIAG, _BY_FAMILY, _REQUEST, _ANSWER_BYTES = 4, 20, 1, 8192
"""NETLINK_SOCK_DIAG, SOCK_DIAG_BY_FAMILY and NLM_F_REQUEST."""
_CGROUP = 21
"""INET_DIAG_CGROUP_ID in <linux/inet_diag.h>, since Linux 5.8."""
_NO_COOKIE = 0xFFFFFFFF
_HEAD = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, sequence, port."""
_ASK = struct.Struct("=BBBBI")
"""The beginning of inet_diag_req_v2: family, protocol, extensions, padding, states. The id follows."""
_STATE = struct.Struct("=BBBB")
"""The beginning of inet_diag_msg: family, state, timer, retransmits. The id follows."""
_PORTS = struct.Struct(">HH")
_ID_BYTES = 48
"""inet_diag_sockid: ports, addresses of 16 bytes, interface, cookie."""
_REST = struct.Struct("=IIIII")
"""The end of inet_diag_msg: expires, rqueue, wqueue, uid, inode."""
_ATTRIBUTE = struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class TcpOwner:
    """Whose one end of a connection is."""

    uid: int
    inode: int
    """Of the socket."""
    cgroup: int | None
    """The inode of the cgroup (version 2) in which the socket was made; None where the kernel does not know it."""


def owner_of(own: tuple[str, int], other: tuple[str, int]) -> TcpOwner | None:
    """Returns whose the end of an established connection is; None where there is no such connection on this machine.

    Args:
        own: the address of this end.
        other: the address of the other end.

    Raises:
        OSError: the kernel cannot be asked.
        ValueError: these are no addresses of one family.
    """
    addresses = [ip_address(host) for host, _ in (own, other)]
    if addresses[0].version != addresses[1].version:
        raise ValueError(f"{own[0]} and {other[0]} are of two families")
    family = socket.AF_INET if addresses[0].version == 4 else socket.AF_INET6
    named = _PORTS.pack(own[1], other[1]) + b"".join(one.packed.ljust(16, b"\0") for one in addresses)
    wanted = named + struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
    return _owner(_asked(_ASK.pack(family, socket.IPPROTO_TCP, 0, 0, _NO_COOKIE) + wanted), named)


# Internal


def _asked(question: bytes) -> bytes:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _SOCK_DIAG) as kernel:
        kernel.settimeout(ANSWER_S)
        kernel.sendto(_HEAD.pack(_HEAD.size + len(question), _BY_FAMILY, _REQUEST, 1, 0) + question, (0, 0))
        while True:
            answer, (port, _groups) = kernel.recvfrom(_ANSWER_BYTES)
            if port == 0:  # else it is not the kernel's
                return answer


def _owner(answer: bytes, named: bytes) -> TcpOwner | None:
    """Returns what an answer says of the connection that was asked for."""
    length, kind, *_ = _HEAD.unpack_from(answer)
    if kind != _BY_FAMILY:
        return None
    at = _HEAD.size
    _family, state, *_ = _STATE.unpack_from(answer, at)
    at += _STATE.size
    if state != ESTABLISHED or answer[at : at + len(named)] != named:
        return None
    *_, uid, inode = _REST.unpack_from(answer, at + _ID_BYTES)
    return TcpOwner(uid, inode, _cgroup(answer[at + _ID_BYTES + _REST.size : length]))


def _cgroup(attributes: bytes) -> int | None:
    while len(attributes) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(attributes)
        if kind == _CGROUP and length == _ATTRIBUTE.size + 8:
            return int.from_bytes(attributes[_ATTRIBUTE.size : length], sys.byteorder)
        attributes = attributes[max((length + 3) & ~3, _ATTRIBUTE.size) :]
    return None
