"""Knows the addresses that answer whoever can reach them: the metadata services of clouds, and all that is link-local.

A machine's credentials can be had there by one request, so that no range of a rule ever covers them: a rule must name
exactly the one address. This file is the only list; both ends ask it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

from tunnel.core.wire.target_rule import Address, Network, normal_address

NETWORKS: Final[tuple[Network, ...]] = (
    ip_network("169.254.0.0/16"),  # RFC 3927; 169.254.169.254 of AWS, Azure, Google, OpenStack, 169.254.170.2 of ECS
    ip_network("fe80::/10"),  # RFC 4291 2.5.6
    ip_network("fd00:ec2::254/128"),  # AWS, by IPv6
    ip_network("100.100.100.200/32"),  # Alibaba Cloud
    ip_network("168.63.129.16/32"),  # Azure's WireServer
)
NAT64: Final = ip_network("64:ff9b::/96")
"""The prefix of addresses that have an IPv4 address in their last 32 bits (RFC 6052 2.1)."""
LOCAL_NAT64: Final = ip_network("64:ff9b:1::/48")
"""The prefix of local translators (RFC 8215). The operator chooses the length of the prefix, and with it where the IPv4
address is."""
SIIT: Final = ip_network("::ffff:0:0:0/96")
"""RFC 2765 2.1, IPv4-translated addresses: a stateless translator takes the last 32 bits. Not IPv4-mapped ones."""
_NUMBER = re.compile(r"0[xX][0-9A-Fa-f]+|0[0-7]*|[1-9][0-9]*")
MAX_DIGITS = 64
"""Of a number in an address: more are leading zeros, or too many for 32 bits, and cost time to read."""
_PARTS = 4


def is_metadata(address: Address) -> bool:
    """Returns whether an address, or an IPv4 address that it stands for, is a metadata or link-local address."""
    return any(face in network for face in faces(address) for network in NETWORKS if network.version == face.version)


def faces(address: Address) -> tuple[Address, ...]:
    """Returns an address as the kernel dials it, and behind it each IPv4 address that a translator may take it for."""
    plain = normal_address(address)
    if isinstance(plain, IPv4Address):
        return (plain,)
    return (plain, *_embedded(plain))


def literal_address(host: str) -> Address | None:
    """Returns the address that a host is, by any spelling that the C library's getaddrinfo takes; None for a name.

    That is more than `ip_address` takes: `2852039166`, `0xa9fea9fe`, `169.254.43518` and `0251.0376.0251.0376` are all
    169.254.169.254 (inet_aton(3)), and `fe80::1%eth0` has a zone.
    """
    if ":" in host:
        try:
            return normal_address(ip_address(host.partition("%")[0]))
        except ValueError:
            return None
    if not host[:1].isdigit():
        return None
    return _inet_aton(host.rstrip("."))


# Internal


def _embedded(address: IPv6Address) -> Iterator[IPv4Address]:
    number = int(address)
    if address in NAT64 or address in SIIT:
        yield IPv4Address(number & 0xFFFFFFFF)
    elif address in LOCAL_NAT64:
        # RFC 6052 2.2: behind a prefix of 48, 56, 64 or 96 bits; the eight bits from 64 on are left out.
        yield IPv4Address((number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF)
        yield IPv4Address((number >> 64 & 0xFF) << 24 | number >> 32 & 0xFFFFFF)
        yield IPv4Address(number >> 24 & 0xFFFFFFFF)
        yield IPv4Address(number & 0xFFFFFFFF)
    elif address.sixtofour is not None:
        yield address.sixtofour
    elif address.teredo is not None:
        yield from address.teredo  # RFC 4380 4: of its server, and of the client behind that


def _inet_aton(text: str) -> IPv4Address | None:
    """Returns the address that inet_aton(3) reads; None when it reads none.

    The text has one to four numbers, decimal, octal or hexadecimal; the last number fills all bytes that are left.
    """
    words = text.split(".")
    if len(words) > _PARTS or not all(map(_NUMBER.fullmatch, words)):
        return None
    if any(len(word) > MAX_DIGITS and len(word.lstrip("0xX")) > MAX_DIGITS for word in words):
        return None
    numbers = [_number(word) for word in words]
    *first, last = numbers
    if any(number > 0xFF for number in first) or last >= 1 << 8 * (_PARTS - len(first)):
        return None
    value = last
    for place, number in enumerate(first):
        value |= number << 8 * (_PARTS - 1 - place)
    return IPv4Address(value)


def _number(word: str) -> int:
    if word[:2] in ("0x", "0X"):
        return int(word, 16)
    return int(word, 8 if word[0] == "0" else 10)
