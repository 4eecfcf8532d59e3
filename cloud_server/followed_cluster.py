"""Follows the Kubernetes cluster of the server's configuration, whichever that is at the moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from cloud_server.kubernetes.access import ClusterAccess, ClusterUnavailable, Reviewed, TokenReviewer
from cloud_server.kubernetes.follow import KINDS, Follower
from cloud_server.routing.cluster import ClusterIndex
from tunnel.aio.process.parts import Part, PartFailed, Parts
from tunnel.aio.process.tasks import TaskOwner

PART = "kubernetes"
REVIEW_S = 8.0
"""Seconds within which the API must say what a token is: a box that joins waits 20 s for its answer."""
Watch = Callable[[asyncio.Task[None]], None]
"""A function that is given each task that may not end by itself."""


class FollowedCluster:
    """Keeps an index of the cluster that it follows. Call `follow` for another cluster, or for none, at any time."""

    def __init__(self, parts: Parts) -> None:
        """Follows nothing yet. `parts` brings the following up; a cluster that is away is no fault of the part."""
        self.index = ClusterIndex()
        """What is known of the cluster; empty when there is none."""
        self._parts = parts
        self._kubeconfig: Path | None = None
        self._part: Part | None = None
        self._follower: Follower | None = None
        self._access: TokenReviewer | None = None
        self._tasks: TaskOwner | None = None
        self._ending = TaskOwner("clusters of before")

    # Public

    def follow(self, kubeconfig: Path | None, watch: Watch) -> None:
        """Follows the cluster of a kubeconfig from now on; with None it follows none.

        What is known of another one before it stays in use until the new one was read.
        """
        if kubeconfig == self._kubeconfig:
            return
        self._kubeconfig = kubeconfig
        if self._part is not None:
            self._parts.forget(self._part)
            self._part = None
        if self._tasks is not None:
            self._ending.spawn("end", self._tasks.aclose())
        self._tasks = self._follower = self._access = None
        if kubeconfig is None:
            for kind in KINDS:
                self.index.keep_only(kind, frozenset())
        else:
            self._part = self._parts.want(PART, partial(self._begin, kubeconfig, watch))

    @property
    def away(self) -> str:
        """Returns why the cluster's API gives no news now; empty when it does, and when there is no cluster."""
        found = self._follower.away if self._follower is not None else {}
        return "; ".join(f"{kind}: {reason}" for kind, reason in sorted(found.items()))

    async def review(self, token: str, audience: str) -> Reviewed:
        """Returns what the cluster's API says of a token.

        Raises:
            ClusterUnavailable: there is no cluster, or its API did not answer.
        """
        if self._access is None:
            why = "it is not read yet" if self._kubeconfig is not None else "there is none: [kubernetes] kubeconfig"
            raise ClusterUnavailable(why)
        try:
            async with asyncio.timeout(REVIEW_S):
                return await self._access.review(token, audience)
        except TimeoutError as error:
            raise ClusterUnavailable("it does not answer") from error

    def ages_s(self) -> dict[str, float]:
        """Returns how many seconds ago the API was heard of each kind of object."""
        return self._follower.ages_s() if self._follower is not None else {}

    async def aclose(self) -> None:
        """Stops following, and waits until it has stopped."""
        if self._tasks is not None:
            await self._tasks.aclose()
        await self._ending.finished()

    # Internal

    async def _begin(self, kubeconfig: Path, watch: Watch) -> None:
        await asyncio.to_thread(import_module, "cloud_server.kubernetes.lightkube_access")  # takes a second
        from cloud_server.kubernetes.lightkube_access import KubeconfigUnusable, LightkubeAccess  # costs 21 MB

        try:
            access = LightkubeAccess.from_kubeconfig(kubeconfig)
        except KubeconfigUnusable as fault:
            raise PartFailed(f"kubernetes.kubeconfig: {fault}", fault.fault) from fault
        self._follower, self._access = Follower(access, self.index), access
        self._tasks = TaskOwner("cluster")
        watch(self._tasks.spawn("follow", _follow(self._follower, access)))


async def _follow(follower: Follower, access: ClusterAccess) -> None:
    try:
        await follower.run()
    finally:
        await access.aclose()
