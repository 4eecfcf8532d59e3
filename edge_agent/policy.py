"""What the box allows to be reached through it: its own list, default deny, above anything the server says."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence

from tunnel.core.errors import Code, OpenRefused
from tunnel.core.target import TcpTarget
from tunnel.core.target_rule import Address, TargetRule, normal_address

Resolve = Callable[[str, int], Awaitable[list[Address]]]
"""Addresses of a host name, in the order in which the system prefers them; OSError when there are none."""


async def system_resolve(host: str, port: int) -> list[Address]:
    """Ask the system's resolver, as any program on the box would."""
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [ipaddress.ip_address(info[4][0].split("%")[0]) for info in infos if isinstance(info[4][0], str)]
    return list(dict.fromkeys(addresses))


LOCALHOST = "localhost"
_LOOPBACK: list[Address] = [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
"""What localhost means whatever a resolver says (RFC 6761 6.3)."""


class Policy:
    """The allow-list of a box."""

    def __init__(self, rules: Sequence[TargetRule], resolve: Resolve = system_resolve) -> None:
        self._rules = tuple(rules)
        self._resolve = resolve

    async def permitted(self, target: TcpTarget) -> list[Address]:
        """Resolve a target and keep the addresses that may be dialled: exactly these, so that no later answer of DNS
        counts.

        A rule with addresses allows what lies in it, however it was named. A rule with a DNS name allows the host of
        that name, and the addresses that the name has now.

        Raises:
            OpenRefused: NAME_NOT_FOUND, or NOT_ALLOWED when no address is left.
        """
        rules = [rule for rule in self._rules if rule.matches_port(target.port)]
        addresses = await self._addresses(target)
        by_name = any(rule.matches_name(target.host, target.port) for rule in rules)
        allowed = addresses if by_name else [one for one in addresses if await self._allows(rules, one, target.port)]
        if not allowed:
            raise OpenRefused(f"{target} is not allowed by this box's [[allow]] rules", Code.NOT_ALLOWED)
        return allowed

    async def _addresses(self, target: TcpTarget) -> list[Address]:
        try:
            return [normal_address(ipaddress.ip_address(target.host))]
        except ValueError:
            pass
        if target.host.lower() == LOCALHOST:
            return list(_LOOPBACK)
        try:
            found = await self._resolve(target.host, target.port)
        except (OSError, UnicodeError):
            found = []
        if not found:
            raise OpenRefused(f"{target.host} does not resolve on this box", Code.NAME_NOT_FOUND)
        return [normal_address(address) for address in found]

    async def _allows(self, rules: Sequence[TargetRule], address: Address, port: int) -> bool:
        if any(rule.matches_address(address, port) for rule in rules):
            return True
        for name in {rule.name for rule in rules if rule.name}:
            try:
                current = await self._resolve(name, port)
            except OSError:
                continue
            if address in map(normal_address, current):
                return True
        return False
