"""Knows the kubelet that shows no certificate since its own has ended, for as long as that is allowed.

A kubelet that rotates its certificate shows none once that has ended (client-go v0.34 `util/certificate`, Current), and
so would be nobody here, on a node that is away from the cloud for so long that nobody can renew it. A connection
without a certificate counts as the node's own if all of this is so:

1. The certificate in the kubelet's own file has ended, by the clock that the kubelet goes by as well.
2. It comes from this machine to this machine (loopback), and the kernel knows its other end in the agent's own network
   namespace, as a socket that was made by root in the cgroup of the kubelet's service. A pod with the node's network
   has root's number too, and another cgroup.
3. That certificate has been over for less than the grace. What counts is the time that the agent has run meanwhile, and
   not what the clock says: a node without the cloud may have any time, and one that boots a year ahead has all of its
   certificates at an end, and its pods to run.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

import structlog

from edge_agent.autonomy.kept.disk import Kept, ScopeWrite, Stored
from edge_agent.autonomy.kept.keeper import Keeper
from tunnel.aio.identity.certificate import read_pem
from tunnel.aio.process.blocking import BlockingCalls, NotAnswering
from tunnel.aio.sockets.conn import Conn
from tunnel.aio.sockets.tcp_owner import owner_of
from tunnel.core.wire.faults import KUBELET_CERTIFICATE_ENDED, NOT_THE_KUBELET
from tunnel.kubeapi.status import Json

SCOPE = "!ended"
TICK_S = 600.0
"""Seconds after which the time that a certificate is over is written down; so much of it may be lost at a restart."""
LOOK_S = 1.0
"""Seconds for which the certificate is not read again."""
ROOT = 0
DAY_S = 86400.0

_log = structlog.get_logger("edge.autonomy")


@dataclass(frozen=True, slots=True)
class _Certificate:
    digest: str
    ends: datetime

    @property
    def is_over(self) -> bool:
        return datetime.now(UTC) > self.ends


class BareKubelet:
    """Decides whether a connection without a certificate is the kubelet's."""

    def __init__(self, certificate: Path, cgroup: Path, grace_s: float, keeper: Keeper) -> None:
        """Reads nothing yet.

        Args:
            certificate: the kubelet's.
            cgroup: the folder of the cgroup (version 2) of the kubelet's service.
            grace_s: seconds for which a kubelet without a certificate is believed; 0: never.
            keeper: keeps how much of that is used.
        """
        self._path = certificate
        self._cgroup = cgroup
        self._grace_s = grace_s
        self._keeper = keeper
        self._calls = BlockingCalls("kubelet without a certificate", threads=2)
        self._certificate: _Certificate | None = None
        self._looked_s: float | None = None
        self._looking = asyncio.Lock()
        self._counted = ""
        """The digest of the certificate that `used_s` is about."""
        self._used_s = 0.0
        self._since_s: float | None = None
        """Since when that is over in this process, on the loop's clock, as far as it is not in `used_s` yet."""
        self._peers: WeakKeyDictionary[Conn, bool] = WeakKeyDictionary()
        """By connection, whether its other end is the kubelet's."""
        self._said: set[str] = set()
        """The reasons for which somebody was not believed, of which the log has each once."""

    # Public

    def restore(self, kept: Kept | None) -> None:
        """Takes what was on the disk."""
        for one in kept.objects if kept is not None else ():
            self._counted, self._used_s = one.name, float(one.raw)

    async def run(self) -> None:
        """Counts for how long the certificate is over, until it is cancelled."""
        while True:
            if await self._is_over():
                await asyncio.sleep(TICK_S)
                await self._count()
            else:
                await asyncio.sleep(TICK_S / 10)

    async def is_it(self, conn: Conn) -> bool:
        """Returns whether a connection on which no certificate was shown is the kubelet's, and is believed."""
        if self._grace_s <= 0 or not await self._is_over():
            return False
        known = self._peers.get(conn)
        if known is None:
            known = self._peers[conn] = await self._is_kubelets(conn)
        if known and self.left_s <= 0:
            days = f"{self._grace_s / DAY_S:.1f}"
            self._doubt(f"its certificate is over for more than {days} days in which the agent ran")
            return False
        return known

    @property
    def left_s(self) -> float:
        """Returns for how many seconds more a kubelet without a certificate is believed; below 0 when it is not."""
        running_s = asyncio.get_running_loop().time() - self._since_s if self._since_s is not None else 0.0
        return self._grace_s - self._used_s - running_s

    def as_json(self) -> Json:
        """Returns how the certificate stands, as the admin API shows it."""
        over = self._certificate is not None and self._certificate.is_over
        return {
            "certificate_ends": self._certificate.ends if self._certificate is not None else None,
            "grace_left_s": round(max(self.left_s, 0.0)) if over else None,
        }

    # Internal

    async def _is_over(self) -> bool:
        """Returns whether the certificate in the kubelet's file has ended."""
        async with self._looking:
            now_s = asyncio.get_running_loop().time()
            if self._looked_s is None or now_s - self._looked_s >= LOOK_S:
                try:
                    self._certificate = await self._calls.run(self._read)
                except (OSError, ValueError, NotAnswering):
                    self._certificate = None
                self._looked_s = now_s
                self._follow(now_s)
        return self._certificate is not None and self._certificate.is_over

    def _read(self) -> _Certificate:
        first = read_pem(self._path.read_bytes())[0]
        return _Certificate(sha256(first.spki_der + first.serial.encode()).hexdigest(), first.validity.not_after)

    def _follow(self, now_s: float) -> None:
        """Takes what was read: begins to count, or ends that."""
        now = self._certificate
        if now is None or not now.is_over:
            self._since_s = None
            return
        if now.digest != self._counted:
            self._counted, self._used_s, self._since_s = now.digest, 0.0, None
        if self._since_s is None:
            self._since_s = now_s
            _log.warning(
                "the kubelet's certificate has ended", code=KUBELET_CERTIFICATE_ENDED.code, file=str(self._path),
                ended=now.ends.isoformat(), believed_for_days=round(max(self.left_s, 0.0) / DAY_S, 1),
            )  # fmt: skip

    async def _count(self) -> None:
        if not await self._is_over() or self._since_s is None:
            return
        now_s = asyncio.get_running_loop().time()
        self._used_s, self._since_s = self._used_s + now_s - self._since_s, now_s
        put = Stored("", self._counted, "", 0, repr(self._used_s).encode())
        await self._keeper.write(ScopeWrite(SCOPE, 0, puts=[put], anew=True))

    async def _is_kubelets(self, conn: Conn) -> bool:
        """Returns whether the other end of a connection is a socket of the kubelet's."""
        transport = conn.transport
        try:
            own, other = (transport.get_extra_info(name)[:2] for name in ("sockname", "peername"))
            if not (ip_address(own[0]).is_loopback and ip_address(other[0]).is_loopback):
                return False
            inode = os.fstat(transport.get_extra_info("socket").fileno()).st_ino
            found = await self._calls.run(partial(_look_at, own, other, inode, self._cgroup))
        except (OSError, ValueError, NotAnswering) as error:
            found = _Found(is_kubelet=False, doubt=f"the kernel does not tell whose it is: {error}")
        if conn.closed.done():
            return False
        if found.doubt:
            self._doubt(found.doubt)
        return found.is_kubelet

    def _doubt(self, reason: str) -> None:
        if reason not in self._said:
            self._said.add(reason)
            _log.warning("a client without a certificate is not taken for the kubelet", code=NOT_THE_KUBELET.code,
                         reason=reason)  # fmt: skip


# Internal


class _Found(NamedTuple):
    is_kubelet: bool
    doubt: str = ""
    """Why it is not, where somebody might have thought that it is."""


def _look_at(own: tuple[str, int], other: tuple[str, int], inode: int, cgroup: Path) -> _Found:
    """Returns whether the other end of a connection is the kubelet's. Blocks.

    Args:
        own: the address of this end.
        other: the address of the other end.
        inode: of this end's socket.
        cgroup: the folder of the kubelet's cgroup.

    Raises:
        OSError: the kernel cannot be asked.
        ValueError: an address is none.
    """
    peer = owner_of(other, own)
    if peer is None or peer.uid != ROOT:
        return _Found(is_kubelet=False)
    # While this end is as it was, no other connection can have its addresses: what was found is its other end.
    mine = owner_of(own, other)
    if mine is None or mine.inode != inode:
        return _Found(is_kubelet=False)
    if peer.cgroup is None:
        doubt = "the kernel knows no cgroups of sockets (Linux 5.8, and version 2 of cgroups)"
        return _Found(is_kubelet=False, doubt=doubt)
    try:
        wanted = cgroup.stat().st_ino
    except OSError as error:
        return _Found(is_kubelet=False, doubt=f"autonomy.kubelet_cgroup: {cgroup}: {error.strerror}")
    if peer.cgroup != wanted:
        doubt = f"it is root's, and not in the cgroup autonomy.kubelet_cgroup = {cgroup}"
        return _Found(is_kubelet=False, doubt=doubt)
    return _Found(is_kubelet=True)
