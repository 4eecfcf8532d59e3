"""Decides what may be reached through this end: its own list, default deny, above anything that the peer says.

Names are resolved here, and what is returned are addresses to dial as they are: no later answer of DNS counts.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address

from tunnel.aio.process.blocking import BlockingCalls, NotAnswering
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.faults import NOT_ALLOWED_BY_BOX, Fault
from tunnel.core.wire.target import TcpTarget
from tunnel.core.wire.target_rule import Address, TargetRule, is_dns_name, normal_address

LOCALHOST = "localhost"
LOOPBACK: tuple[Address, ...] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
"""The addresses that `localhost` always has (RFC 6761 6.3), whatever the box's files and DNS say."""
_BROADCAST = IPv4Address("255.255.255.255")

LOOKUPS = 32
"""The most lookups at once. A name whose servers are silent holds a thread for 10 to 30 s, the C library's limit
(resolv.conf(5)).
"""
LOOKUP_S = 35.0
"""Seconds that a lookup may take: more than that limit, since who asked has a deadline of its own, and a lookup that
only takes long must not pass for one that never ends.
"""
_lookups = BlockingCalls("dns", threads=LOOKUPS, wait_s=LOOKUP_S)

Resolve = Callable[[str, int], Awaitable[list[Address]]]
"""Returns the addresses of a host name, those that the system prefers first; raises OSError when there are none."""


async def system_resolve(host: str, port: int) -> list[Address]:
    """Asks the system's resolver, as any program on the box would, and returns the addresses, each once.

    Raises:
        OSError: the name has no address, or the resolver does not answer.
    """
    # Not through the loop: asyncio's pool is needed for more, and uvloop looks up two names at a time.
    try:
        infos = await _lookups.run(partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM))
    except NotAnswering:
        raise socket.gaierror(socket.EAI_AGAIN, "the system's resolver does not answer") from None
    addresses = [ip_address(info[4][0].split("%")[0]) for info in infos if isinstance(info[4][0], str)]
    return list(dict.fromkeys(addresses))


class Policy:
    """The allow-list of a box, or what a server exposes."""

    def __init__(
        self,
        rules: Sequence[TargetRule],
        resolve: Resolve = system_resolve,
        *,
        list_name: str = "this box's [[allow]] rules",
        place: str = "on this box",
        fault: Fault = NOT_ALLOWED_BY_BOX,
    ) -> None:
        """Holds to `rules`.

        `list_name` and `place` are how refusals call the list and this end, `fault` is their cause.
        """
        self._rules = tuple(rules)
        self._resolve = resolve
        self._list_name = list_name
        self._place = place
        self._fault = fault

    async def permitted(self, target: TcpTarget) -> list[Address]:
        """Resolves a target and returns the addresses that may be dialled: exactly these.

        A rule with addresses allows what lies in it, however it was named. A rule with a DNS name allows the host of
        that name, and the addresses that the name has now; but never, by an answer of DNS alone, this box itself or
        its link, where services listen that trust whoever can reach them.

        Raises:
            OpenRefused: NAME_NOT_FOUND, or NOT_ALLOWED when no address is left.
        """
        rules = [rule for rule in self._rules if rule.matches_port(target.port)]
        addresses = _without_lookup(target.host)
        if not addresses:
            if not rules:  # nothing could be allowed: nobody makes this box ask DNS for it
                raise self._not_allowed(target, ())
            addresses = await self._look_up(target.host, target.port)
        allowed = [
            address
            for address in addresses
            if any(rule.matches_address(address, target.port) for rule in rules) or _fits_name(address, target, rules)
        ]
        if not allowed:
            allowed = await self._known_by_name(addresses, target, rules)
        allowed = [address for address in allowed if _can_be_dialled(address)]
        if not allowed:
            raise self._not_allowed(target, addresses)
        return allowed

    @property
    def rules(self) -> Sequence[TargetRule]:
        """Returns the rules of the list."""
        return self._rules

    def rule_for(self, target: TcpTarget, address: Address) -> TargetRule | None:
        """Returns the rule by which an address may be dialled for a target; None when no rule allows it.

        Asks no DNS: of an address that `permitted` has found to be a rule's name's, the rule is the first with a name
        and this port.
        """
        rules = [rule for rule in self._rules if rule.matches_port(target.port)]
        for rule in rules:
            if rule.matches_address(address, target.port) or _fits_name(address, target, [rule]):
                return rule
        return next((rule for rule in rules if rule.name and _may_be_named(address, rule.name)), None)

    def still_allows(self, target: TcpTarget, address: Address, rule: TargetRule | None) -> bool:
        """Returns whether a connection that `rule` of an earlier list allowed is allowed by this one.

        A rule that is still there holds; so does any other that covers the address or the very name that was asked for.
        """
        if rule in self._rules:
            return True
        return any(
            one.matches_address(address, target.port) or _fits_name(address, target, [one])
            for one in self._rules
            if one.matches_port(target.port)
        )

    # Internal

    async def _known_by_name(
        self, addresses: Sequence[Address], target: TcpTarget, rules: Sequence[TargetRule]
    ) -> list[Address]:
        """Returns those of the addresses that the DNS name of a rule has now."""
        allowed: set[Address] = set()
        for name in dict.fromkeys(rule.name for rule in rules if rule.name):
            try:
                current = _without_lookup(name) or await self._look_up(name, target.port)
            except OpenRefused:
                continue
            allowed.update(address for address in current if _may_be_named(address, name))
        return [address for address in addresses if address in allowed]

    def _not_allowed(self, target: TcpTarget, addresses: Sequence[Address]) -> OpenRefused:
        dialled = [str(TcpTarget(str(address), target.port)) for address in addresses]
        what = str(target) if dialled in ([], [str(target)]) else f"{target} ({', '.join(dialled[:4])})"
        return OpenRefused(f"{what} is not allowed by {self._list_name}", Code.NOT_ALLOWED, self._fault)

    async def _look_up(self, host: str, port: int) -> list[Address]:
        if not is_dns_name(host):  # the C library would read "a\0b" as another name than our rules do
            raise OpenRefused("the host is neither an address nor a DNS name", Code.NAME_NOT_FOUND)
        try:
            found = await self._resolve(host, port)
        except OSError as error:
            reason = (error.strerror or "no such name").lower()
            raise OpenRefused(f"{host} does not resolve {self._place}: {reason}", Code.NAME_NOT_FOUND) from error
        if not found:
            raise OpenRefused(f"{host} does not resolve {self._place}", Code.NAME_NOT_FOUND)
        return list(dict.fromkeys(normal_address(address) for address in found))


def _without_lookup(host: str) -> list[Address]:
    """Returns the addresses of a literal or of localhost; none when the host is a name to look up."""
    if _is_localhost(host):
        return list(LOOPBACK)
    try:
        return [normal_address(ip_address(host))]
    except ValueError:
        return []


def _is_localhost(host: str) -> bool:
    return host.lower().removesuffix(".") == LOCALHOST


def _fits_name(address: Address, target: TcpTarget, rules: Sequence[TargetRule]) -> bool:
    named = any(rule.matches_name(target.host, target.port) for rule in rules)
    return named and _may_be_named(address, target.host)


def _may_be_named(address: Address, name: str) -> bool:
    """Returns whether a DNS name suffices to reach an address.

    For the box's own addresses and its link's it does not: they must stand in a rule themselves.
    """
    return _is_localhost(name) or not (address.is_loopback or address.is_link_local)


def _can_be_dialled(address: Address) -> bool:
    """Returns whether an address stands for one host: the kernel takes 0.0.0.0 and :: for this box, and multicast and
    broadcast are no one host.
    """
    return not (address.is_unspecified or address.is_multicast or address == _BROADCAST)
