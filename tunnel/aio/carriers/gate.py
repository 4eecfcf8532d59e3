"""The gate of the tunnel's port, in front of gRPC and behind it: connections that make no call are few, and soon gone.

In front: the kernel holds a connection back until its first bytes are there (TCP_DEFER_ACCEPT), so that one that says
nothing costs this process nothing. Behind: what gRPC has accepted is looked at while connections come in, and while
some have no call; those beyond a limit are reset (docs/decisions/0085-the-gate-of-the-tunnels-port.md).
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter

import structlog

from tunnel.aio.carriers.accepted_sockets import AcceptedSockets
from tunnel.aio.carriers.limits import CarrierLimits
from tunnel.aio.carriers.peer_key import PeerKey
from tunnel.aio.carriers.places import Places
from tunnel.aio.carriers.waiting import ABOVE_LIMIT, Victim, Waiting
from tunnel.aio.process.malloc import give_back
from tunnel.aio.process.tasks import TaskOwner
from tunnel.core.wire.faults import PEER_SAID_NOTHING, TOO_MANY_CLIENTS

__all__ = ["Gate"]

SOON_S = 0.02
"""Seconds from a connection to the look at it: in a flood, gRPC accepts some hundred more meanwhile."""
AGAIN_S = 0.5
"""Seconds between looks while some connections have no call, or while the number of our descriptors changes."""
AT_LATEST_S = 10.0
"""Seconds between looks when nothing seems to have happened: gRPC may accept a connection before the event loop is told
that it came, and descriptors that come as others go do not change their number.
"""
WARN_EVERY_S = 10.0
GIVE_BACK = 64
"""So many connections that wait no more are worth asking the allocator for its free pages."""
SETTLED_S = 2.0
"""Seconds without one after which it is asked: gRPC frees a connection a moment after it is gone."""

_log = structlog.get_logger("tunnel.gate")


class Gate:
    """Watches the connections of all listeners of one carrier server."""

    def __init__(self, limits: CarrierLimits, places: Places | None = None) -> None:
        self.cut: Counter[str] = Counter()
        """How many connections were cut so far, by reason."""
        self._waiting = Waiting(limits, places)
        self._sockets = AcceptedSockets()
        self._ports: set[int] = set()
        self._listening: list[socket.socket] = []
        self._with_call: dict[PeerKey, int] = {}
        """The descriptors of connections with a call, which need no look."""
        self._come = asyncio.Event()
        self._descriptors = 0
        """How many descriptors there were at the last look."""
        self._looked_s = float("-inf")
        self._armed = False
        self._unsaid: Counter[tuple[str, str]] = Counter()
        """Cuts that the log does not have yet, by reason and address."""
        self._said_s = float("-inf")
        self._freed = 0
        """How many connections wait no more, since the allocator was asked for its free pages."""
        self._freed_s = 0.0
        self._tasks = TaskOwner("gate")

    @property
    def waiting(self) -> int:
        """Returns how many connections had no call at the last look."""
        return len(self._waiting)

    @property
    def most_of_one(self) -> int:
        """Returns how many those were of the address with the most."""
        return self._waiting.most_of_one()

    def use(self, limits: CarrierLimits) -> None:
        """Goes by other limits from the next look on."""
        self._waiting.limits = limits

    async def watch(self, port: int) -> None:
        """Watches another port, at which gRPC listens by now."""
        for sock in await asyncio.to_thread(self._sockets.listening, port):
            # Rounded up by the kernel to a number of its SYN-ACKs; what still says nothing then comes to gRPC.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, int(self._waiting.limits.call_timeout_s))
            self._listening.append(sock)
        if not self._ports:
            self._tasks.spawn("look", self._run())
        self._ports.add(port)
        self._disarm()
        self._arm()

    def began(self, peer: str) -> None:
        """Notes that an authorised call runs on the connection of `peer`, `ip:port`."""
        self._waiting.began(PeerKey.of_text(peer), asyncio.get_running_loop().time())

    def ended(self, peer: str) -> None:
        """Notes that a call is over."""
        key = PeerKey.of_text(peer)
        self._waiting.ended(key, asyncio.get_running_loop().time())
        if not self._waiting.has_call(key):
            self._with_call.pop(key, None)
            self._come.set()

    def refused(self, peer: str) -> None:
        """Notes that a call was refused on the connection of `peer`, `ip:port`, which is cut in a moment."""
        self._waiting.refused(PeerKey.of_text(peer), asyncio.get_running_loop().time())
        self._come.set()

    def stop_listening(self) -> None:
        """Lets go of the listening sockets, which would go on listening for nobody. Connections are still watched."""
        self._disarm()
        for sock in self._listening:
            sock.close()
        self._listening.clear()

    async def aclose(self) -> None:
        """Ends the watch."""
        self.stop_listening()
        await self._tasks.aclose()

    # Internal

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            for sock in self._listening:
                asyncio.get_running_loop().add_reader(sock, self._coming)

    def _disarm(self) -> None:
        if self._armed:
            self._armed = False
            for sock in self._listening:
                asyncio.get_running_loop().remove_reader(sock)

    def _coming(self) -> None:
        """Somebody has come, whom gRPC accepts; its sockets are not looked at for every one of them."""
        self._disarm()
        self._come.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                async with asyncio.timeout(AGAIN_S):
                    await self._come.wait()
                await asyncio.sleep(SOON_S)
            except TimeoutError:
                if not await self._may_have_come(loop.time()):
                    continue
            self._come.clear()
            self._arm()
            await self._look(loop)
            self._tell(loop.time())
            await self._give_back(loop.time())

    async def _may_have_come(self, now_s: float) -> bool:
        """Returns whether a look is due though the event loop was not told that anybody came."""
        if self.waiting or self._unsaid or self._freed or now_s - self._looked_s >= AT_LATEST_S:
            return True
        there = await asyncio.to_thread(self._sockets.descriptors)
        return there == 0 or there != self._descriptors

    async def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        before = self.waiting
        skipped = frozenset(self._with_call.values())
        self._looked_s = loop.time()
        self._descriptors = await asyncio.to_thread(self._sockets.descriptors)
        found = await asyncio.to_thread(self._sockets.find, self._ports, skipped)
        victims = self._waiting.look(loop.time(), found)
        for peer, descriptor in found.items():
            if self._waiting.has_call(peer):
                self._with_call[peer] = descriptor
        if freed := len(victims) + max(0, before - self.waiting):
            self._freed += freed
            self._freed_s = loop.time()
        if victims:
            await asyncio.to_thread(self._cut, victims, found)
            for victim in victims:
                self.cut[victim.reason] += 1
                self._unsaid[victim.reason, victim.peer.client_text] += 1

    def _cut(self, victims: list[Victim], found: dict[PeerKey, int]) -> None:
        for victim in victims:
            self._sockets.cut(found[victim.peer], victim.peer)

    def _tell(self, now_s: float) -> None:
        """Logs what was cut: a line for each reason, now and then."""
        if not self._unsaid or now_s - self._said_s < WARN_EVERY_S:
            return
        self._said_s = now_s
        for reason in {reason for reason, _ in self._unsaid}:
            addresses = Counter({where: count for (why, where), count in self._unsaid.items() if why == reason})
            most, count = addresses.most_common(1)[0]
            fault = TOO_MANY_CLIENTS if reason == ABOVE_LIMIT else PEER_SAID_NOTHING
            _log.warning(
                "connections to the tunnel's port were cut",
                code=fault.code,
                reason=reason,
                count=addresses.total(),
                addresses=len(addresses),
                most_from=most,
                most=count,
            )
        self._unsaid.clear()

    async def _give_back(self, now_s: float) -> None:
        """Gives free memory back once the flood is over."""
        if self._freed and now_s - self._freed_s >= SETTLED_S:
            if self._freed >= GIVE_BACK:
                await asyncio.to_thread(give_back)
            self._freed = 0
