"""Keeps the addresses that servers' names had when a dial by name last came up, for days on which DNS does not answer.

They are kept in the state folder, since a box whose DNS fails is restarted sooner or later. What listens at an address
still has to show a certificate for the name, so an address that is somebody else's by now costs a failed dial and no
more.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
from collections.abc import Callable
from pathlib import Path

import structlog

from tunnel.aio.carriers.carrier import DialOptions
from tunnel.aio.process.blocking import BlockingCalls, NotAnswering
from tunnel.aio.process.files import PUBLIC, write_atomic
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sockets.address import split_address
from tunnel.core.wire.faults import STATE_NOT_WRITABLE
from tunnel.core.wire.spoken import spoken_s

LOOKUP_S = 3.0
"""The seconds for a lookup. A name that takes longer counts as one that does not resolve: an answer comes in
milliseconds, or from a second server after the 5 s of resolv.conf(5), and the address that is kept is at hand."""
FIRST_LOOK_S, LAST_LOOK_S = 2.0, 60.0
"""The seconds until a name that did not resolve is looked up again, at first and in the end."""
MAX_ADDRESSES = 8
"""The most addresses of a name that are kept."""
FILE_NAME = "addresses.json"

_lookups = BlockingCalls("servers' names", threads=2, wait_s=LOOKUP_S)
_log = structlog.get_logger("edge.addresses")


class Addresses:
    """The addresses of servers that are known beside DNS."""

    def __init__(self, folder: Path, on_dns: Callable[[str], None]) -> None:
        """Reads what was kept. Blocks.

        Args:
            folder: the state folder.
            on_dns: is told how DNS fares each time that it matters: why a name does not resolve, or "" when it does.
        """
        self._path = folder / FILE_NAME
        self._on_dns = on_dns
        self._known = _read(self._path)
        self._unwritten = False
        """Whether the file lacks some of what is known."""
        self._tasks = TaskOwner("servers' addresses")
        self._keeping: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None

    def reached(self, server: str, options: DialOptions) -> None:
        """Keeps what a server's name leads to now, because a dial by name came up. Returns at once."""
        host = _name_to_look_up(server, options)
        if host and (self._keeping is None or self._keeping.done()):
            self._keeping = self._tasks.spawn(host, self._keep(host))

    async def in_place_of_dns(self, server: str, options: DialOptions) -> list[str]:
        """Returns addresses to dial after a dial by name has failed: none while the name does resolve."""
        host = _name_to_look_up(server, options)
        if not host:
            return []
        try:
            await _look_up(host)
        except OSError as error:
            reason = f"{host} does not resolve on this box: {(error.strerror or str(error)).lower()}"
            known = self._known.get(host, [])
            self._watch(host)
            self._on_dns(f"{reason}; dialled by the address that it had: {', '.join(known)}" if known else reason)
            return known
        self._on_dns("")
        return []

    async def aclose(self) -> None:
        """Ends the lookups that run."""
        await self._tasks.aclose()

    def _watch(self, host: str) -> None:
        if self._watching is None or self._watching.done():
            self._watching = self._tasks.spawn(f"watch {host}", self._until_it_resolves(host))

    async def _until_it_resolves(self, host: str) -> None:
        """Looks the name up until it resolves, since nothing else tells that DNS is well again while the link holds."""
        pause_s = FIRST_LOOK_S
        while True:
            await asyncio.sleep(pause_s)
            with contextlib.suppress(OSError):
                await _look_up(host)
                self._on_dns("")
                return
            pause_s = min(2 * pause_s, LAST_LOOK_S)

    async def _keep(self, host: str) -> None:
        try:
            found = await _look_up(host)
        except OSError:  # it just did; the next dial tells
            return
        self._on_dns("")
        # Names with several addresses have them in another order each time: that is nothing new to write.
        if not self._unwritten and set(found) == set(self._known.get(host, ())):
            return
        self._known[host], self._unwritten = found, True
        try:
            text = json.dumps(self._known, indent=1)
            await asyncio.to_thread(write_atomic, self._path, f"{text}\n".encode(), PUBLIC)
            self._unwritten = False
        except OSError as error:
            _log.warning(
                "the servers' addresses are not kept for a restart",
                code=STATE_NOT_WRITABLE.code,
                file=str(self._path),
                reason=str(error),
            )


# Internal


def _name_to_look_up(server: str, options: DialOptions) -> str:
    """Returns the host, if it is a name that this box resolves; empty for an address, or for what a proxy resolves."""
    try:
        host, _ = split_address(server)
        if options.proxy_to(host) is not None:
            return ""
    except ValueError:
        return ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host
    return ""


async def _look_up(host: str) -> list[str]:
    try:
        found = await _lookups.run(lambda: socket.getaddrinfo(host, None, type=socket.SOCK_STREAM))
    except NotAnswering:
        raise socket.gaierror(socket.EAI_AGAIN, f"no answer within {spoken_s(LOOKUP_S)}") from None
    return [str(info[4][0]) for info in found][:MAX_ADDRESSES]


def _read(path: Path) -> dict[str, list[str]]:
    """Returns what the file holds that can be used; nothing where it cannot be read, since it is only ever a help."""
    try:
        kept = json.loads(path.read_bytes())
        return {
            str(host): [str(ipaddress.ip_address(address)) for address in addresses[:MAX_ADDRESSES]]
            for host, addresses in kept.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
