"""Holds what the limits of a rule are made of: globs over names, and patterns over targets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from tunnel.core.wire.globs import fixed_head, is_glob, is_wild, matches_any
from tunnel.core.wire.metadata_addresses import faces, is_metadata, literal_address
from tunnel.core.wire.target import ServiceTarget, Target, TcpTarget
from tunnel.core.wire.target_rule import LOOPBACK_NAME, Address, TargetRule

SERVICE = "service:"
_ANY_HOST = "any"


class Globs:
    """Several patterns of names, sorted by what it takes to match them; see `globs.matches`."""

    __slots__ = ("_exact", "_heads", "_others", "prefixes", "texts")

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = tuple(texts)
        wild = [text for text in self.texts if is_wild(text)]
        self._exact = frozenset(self.texts).difference(wild)
        # Most are `site-a-*`, which takes no look at each character.
        self._heads = tuple(text[:-1] for text in wild if text.endswith("*") and not is_wild(text[:-1]))
        self._others = tuple(text for text in wild if not text.endswith("*") or is_wild(text[:-1]))
        self.prefixes = frozenset(map(fixed_head, self.texts))
        """The texts with which the names that match begin: each name that matches begins with one of them."""

    def match(self, name: str) -> bool:
        """Returns whether any of the globs matches a name. The empty name matches only when it is one of the texts."""
        if name in self._exact:
            return True
        if not name:
            return False
        return name.startswith(self._heads) or matches_any(self._others, name)


class Aim:
    """A target as rules look at it, computed once for all rules."""

    __slots__ = ("address", "faces", "metadata", "name", "port", "service", "target")

    def __init__(self, target: Target) -> None:
        self.target = target
        self.service = target.name if isinstance(target, ServiceTarget) else ""
        self.name, self.port = "", 0
        self.address: Address | None = None
        """The address of the host; None for a name, which only the box resolves."""
        self.faces: tuple[Address, ...] = ()
        self.metadata = False
        if not isinstance(target, TcpTarget):
            return
        self.port = target.port
        self.name, self.address, self.faces, self.metadata = _host(target.host)


class TargetPattern:
    """One of the `targets` of a rule: `host:ports`, `*.example.com:ports`, `*:ports`, `service:NAME`, or `*`."""

    __slots__ = ("_any_host", "_any_target", "_rule", "_service", "_suffix", "text")

    def __init__(self, text: str) -> None:
        """Parses a pattern.

        Raises:
            ValueError: it is none; the text says what is wrong.
        """
        self.text = text
        self._any_target = text == "*"
        self._service = Globs([text.removeprefix(SERVICE)]) if text.startswith(SERVICE) else None
        self._suffix, self._any_host = "", False
        self._rule: TargetRule | None = None
        if self._any_target:
            return
        if self._service is not None:
            if not is_glob(text.removeprefix(SERVICE)):
                raise ValueError(f"{text!r} names no service: write service:NAME, such as service:ssh")
            return
        if text.startswith("*:"):
            self._any_host, text = True, _ANY_HOST + text[1:]
        self._rule = TargetRule.parse(text.removeprefix("*."))
        if text.startswith("*."):
            if self._rule.network is not None:
                raise ValueError(f"{text!r}: * stands before a DNS name, such as *.example.com:443, or alone")
            self._suffix = f".{self._rule.name}"

    def covers(self, aim: Aim) -> bool:
        """Returns whether the pattern covers a target, by the target's name or by the address that it says."""
        return self._covers(aim, (aim.address,) if aim.address is not None else ())

    def touches(self, aim: Aim) -> bool:
        """Returns whether the pattern may cover a target, also by another form of its address.

        Denies look at a target so.
        """
        return self._covers(aim, aim.faces)

    def names(self, aim: Aim) -> bool:
        """Returns whether the pattern is exactly the one address of a target, with its port."""
        rule = self._rule
        if rule is None or rule.network is None or rule.network.num_addresses != 1 or aim.address is None:
            return False
        return rule.network.network_address == aim.address and rule.matches_port(aim.port)

    # Internal

    def _covers(self, aim: Aim, addresses: Iterable[Address]) -> bool:
        if self._any_target:
            return True
        if self._service is not None or aim.service:
            return self._service is not None and self._service.match(aim.service)
        rule = self._rule
        if rule is None or not rule.matches_port(aim.port):
            return False
        if self._any_host:
            return True
        if rule.network is None:
            if self._suffix:
                return aim.name.endswith(self._suffix)
            return aim.name == rule.name
        return any(address in rule.network for address in addresses)


# Internal


@lru_cache(maxsize=4096)
def _host(host: str) -> tuple[str, Address | None, tuple[Address, ...], bool]:
    """Returns the name, the address, the faces, and whether it is a metadata address, of one host."""
    name = host.lower().rstrip(".")
    address = literal_address("127.0.0.1" if name == LOOPBACK_NAME else host)
    if address is None:
        return name, None, (), False
    return name, address, faces(address), is_metadata(address)


@dataclass(frozen=True, slots=True)
class Targets:
    """All target patterns of one rule."""

    patterns: tuple[TargetPattern, ...]

    def covers(self, aim: Aim) -> bool:
        """Returns whether one of the patterns covers a target.

        A metadata address is covered only by a pattern that is exactly that address.
        """
        if aim.metadata:
            return any(pattern.names(aim) for pattern in self.patterns)
        return any(pattern.covers(aim) for pattern in self.patterns)

    def touches(self, aim: Aim) -> bool:
        """Returns whether one of the patterns may cover a target, also by another form of its address."""
        return any(pattern.touches(aim) for pattern in self.patterns)
