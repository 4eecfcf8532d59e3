"""Makes what listens equal to what is wanted, one listener at a time, and cuts no connection for it.

Each listener is a part: one that cannot be opened is down, is tried again, and takes no other with it. When a
listener's address has changed, it is opened at the new one before the old one closes; the old one goes on for as long
as the new one is down.
"""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from tunnel.aio.process.limit_use import LimitUse, most
from tunnel.aio.process.parts import Part, Parts
from tunnel.aio.sockets.handshake_fault import Cause
from tunnel.aio.sockets.listener import Handler, Limits, Listener, ListenFailed
from tunnel.aio.sockets.listening import ListeningSockets
from tunnel.aio.sockets.strangers import StrangerLimits
from tunnel.core.wire.host_port import split_host_port

_log = structlog.get_logger("cloud.listeners")


@dataclass(frozen=True, slots=True)
class Place:
    """The place where something listens."""

    address: str = ""
    """The address as `host:port`; empty for a unix socket."""
    path: Path | None = None
    """The path of the unix socket; None for an address."""

    def excludes(self, other: Place) -> bool:
        """Returns whether two places may exclude each other: a port at every address shuts out that of one."""
        if self.path is not None or other.path is not None:
            return self.path == other.path
        (_, port), (_, others) = split_host_port(self.address), split_host_port(other.address)
        return port == others != "0"


@dataclass(frozen=True, slots=True)
class Serving:
    """The handler and the certificate that a listener serves with."""

    handler: Handler
    context: Callable[[], Awaitable[ssl.SSLContext]] | None = None
    """Returns the TLS context to serve with; asked for at each attempt to listen. None means that it listens without
    TLS.
    """
    for_users: bool = False
    """Whether the handler asks clients who they are, and calls `known` of their connections then."""


class _Held:
    """A listener that is wanted, and the one whose place it takes."""

    __slots__ = ("before", "listener", "part", "place")

    def __init__(self, place: Place, listener: Listener) -> None:
        self.place = place
        self.listener = listener
        self.part: Part | None = None
        self.before: tuple[Place, Listener] | None = None
        """The listener that accepts until this one does; None when there is none, or it was closed."""

    @property
    def up(self) -> bool:
        return self.part is not None and self.part.up


class Listeners:
    """All listeners of one kind of peer, by name."""

    def __init__(self, parts: Parts, sockets: ListeningSockets) -> None:
        """Starts without listeners. `parts` keeps each of them up; `sockets` may have been handed over by another
        process.
        """
        self._parts = parts
        self._sockets = sockets
        self._held: dict[str, _Held] = {}
        self._clients = Limits()
        self._strangers = StrangerLimits()
        self._closed: list[Listener] = []
        """Listeners that accept no more, and may still serve."""
        self.handshakes_failed: dict[str, Counter[Cause]] = {}
        """TLS handshakes that failed so far, by the name of each listener that has, or had, TLS, and by cause."""

    # Public

    @property
    def ports(self) -> dict[str, list[int]]:
        """Returns the bound ports by the name of each listener that has any."""
        return {listener.name: listener.ports for listener in self._accepting() if listener.ports}

    def undecided(self, but: str) -> int:
        """Returns how many clients were accepted and have not said what they want yet, without those of the listener
        `but`.
        """
        return sum(one.undecided for one in [*self._accepting(), *self._closed] if one.name != but)

    def connections(self) -> dict[str, int]:
        """Returns how many clients are served, by the names of the listeners that are wanted or still serve."""
        count: Counter[str] = Counter(dict.fromkeys(self._held, 0))
        for listener in [*self._accepting(), *self._closed]:
            count[listener.name] += listener.connections
        return dict(count)

    def strangers(self) -> dict[str, int]:
        """Returns how many clients have not shown who they are, by the name of each listener that asks them."""
        count: Counter[str] = Counter()
        for listener in [*self._accepting(), *self._closed]:
            if listener.strangers is not None:
                count[listener.name] += len(listener.strangers)
        return dict(count)

    def limit(self, clients: Limits, strangers: StrangerLimits) -> None:
        """Lets clients, and those that have not shown who they are, take so much of each listener from now on."""
        self._clients, self._strangers = clients, strangers
        for listener in self._accepting():
            listener.limits = clients
            if listener.strangers is not None:
                listener.strangers.limits = strangers

    def use_of_limits(self) -> Iterator[LimitUse]:
        """Yields how much of each limit is used at the listener where most is."""
        listeners = [*self._accepting(), *self._closed]
        clients, strangers = self._clients, self._strangers
        yield LimitUse("clients", clients.connections, most(self.connections().values()))
        yield LimitUse("clients_per_address", clients.per_address, most(one.most_of_one for one in listeners))
        handshakes = most(one.most_handshakes_of_one for one in listeners)
        yield LimitUse("handshakes_per_address", clients.handshakes_per_address, handshakes)
        yield LimitUse("strangers", strangers.connections, most(self.strangers().values()))
        of_one = most(one.strangers.most_of_one for one in listeners if one.strangers is not None)
        yield LimitUse("strangers_per_address", strangers.per_address, of_one)

    async def apply(self, places: Mapping[str, Place], serving: Callable[[str], Serving]) -> None:
        """Listens at these places from now on, each as soon as it can be opened, and nowhere else.

        Args:
            places: what is wanted, by name.
            serving: what each is for; asked only for one that is opened anew.
        """
        await self._forget_idle()
        for name in self._held.keys() - places.keys():
            self._retire(self._held.pop(name))
        for name, place in places.items():
            held = self._held.get(name)
            if held is None or held.place != place:
                self._held[name] = self._opening(name, place, serving(name), held)

    def renew_contexts(self, contexts: Mapping[str, ssl.SSLContext]) -> None:
        """Shows another certificate to new connections of the listeners with these names."""
        for listener in self._accepting():
            if listener.name in contexts:
                listener.renew_context(contexts[listener.name])

    def close(self, but: str = "") -> None:
        """Accepts no more connections, except those to the listener of the name `but`."""
        for listener in self._accepting():
            if listener.name != but:
                listener.close()

    async def aclose(self) -> None:
        """Closes all listeners and their connections."""
        for listener in [*self._accepting(), *self._closed]:
            await listener.aclose()

    # Internal

    def _accepting(self) -> list[Listener]:
        before = [held.before[1] for held in self._held.values() if held.before is not None]
        return [*(held.listener for held in self._held.values()), *before]

    async def _forget_idle(self) -> None:
        for listener in [one for one in self._closed if not one.connections]:
            self._closed.remove(listener)
            await listener.aclose()

    def _opening(self, name: str, place: Place, serving: Serving, old: _Held | None) -> _Held:
        """Begins to open a listener in the place of an old one."""
        if old is not None and old.before is not None and old.before[0] == place:
            return self._back_to_before(name, old)
        failed: Counter[Cause] | None = None
        if serving.context is not None:  # what was counted stays, though it listens elsewhere now
            failed = self.handshakes_failed.setdefault(name, Counter(dict.fromkeys(Cause, 0)))
        strangers = self._strangers if serving.for_users else None
        listener = Listener(
            name,
            serving.handler,
            self._clients,
            sockets=self._sockets,
            handshakes_failed=failed,
            strangers=strangers,
        )
        held = _Held(place, listener)
        if old is not None:
            assert old.part is not None
            held.before = (old.place, old.listener) if old.up else old.before
            self._parts.forget(old.part)
            if not old.up:
                self._shut(old.listener)
        held.part = self._parts.want(name, partial(self._open, held, serving))
        return held

    def _back_to_before(self, name: str, old: _Held) -> _Held:
        """Goes on with the listener that is open. The place that is wanted is its place, since the one in between never
        came up.
        """
        assert old.part is not None
        assert old.before is not None
        self._parts.forget(old.part)
        self._shut(old.listener)
        held = _Held(*old.before)
        held.part = self._parts.want(name, _nothing)
        return held

    async def _open(self, held: _Held, serving: Serving) -> None:
        context = await serving.context() if serving.context is not None else None
        try:
            await _listen(held, context)
        except ListenFailed:
            if not self._make_way(held.place):
                raise
            await _listen(held, context)
        self._close_before(held)

    def _make_way(self, place: Place) -> bool:
        """Closes the listeners that are on their way out and may be in the way. Returns whether there were any."""
        found = [held for held in self._held.values() if held.before is not None and held.before[0].excludes(place)]
        for held in found:
            self._close_before(held)
        return bool(found)

    def _close_before(self, held: _Held) -> None:
        if held.before is not None:
            self._shut(held.before[1])
            held.before = None

    def _retire(self, held: _Held) -> None:
        assert held.part is not None
        self._parts.forget(held.part)
        self._close_before(held)
        self._shut(held.listener)

    def _shut(self, listener: Listener) -> None:
        listener.close(for_good=True)
        self._closed.append(listener)


async def _listen(held: _Held, context: ssl.SSLContext | None) -> None:
    if held.place.path is not None:
        await held.listener.listen_unix(held.place.path)
    else:
        await held.listener.listen_tcp(held.place.address, context)


async def _nothing() -> None:
    """Opens nothing, for a listener that is open already."""
