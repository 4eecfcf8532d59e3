"""What is asked of a cluster's API, whatever library does it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple, Protocol

from cloud_server.kubernetes.objects import Key, KubernetesObject
from tunnel.core.wire.faults import CLUSTER_UNAVAILABLE, FaultError


class ClusterUnavailable(FaultError):
    """The API did not answer, or refused; the text says why. Worth another try."""

    default_fault = CLUSTER_UNAVAILABLE


class NotPermitted(ClusterUnavailable):
    """403 Forbidden: the account may not read that kind; the text is the API's."""


class VersionTooOld(Exception):
    """410 Gone: the changes since that version are forgotten. All objects are to be listed anew."""


class Snapshot(NamedTuple):
    """All objects of a kind."""

    objects: Sequence[KubernetesObject]
    version: str
    """Where a watch goes on."""


class Changed(NamedTuple):
    """An object that is new or different."""

    object: KubernetesObject
    version: str


class Deleted(NamedTuple):
    """An object that is gone."""

    key: Key
    version: str


class ClusterAccess(Protocol):
    """Reads a cluster's API."""

    async def list_all(self, kind: type[KubernetesObject]) -> Snapshot:
        """All objects of a kind, in all namespaces.

        Raises:
            ClusterUnavailable, NotPermitted
        """
        ...

    def watch(
        self, kind: type[KubernetesObject], version: str, timeout_s: int
    ) -> AsyncGenerator[Changed | Deleted, None]:
        """Changes since a version. It may end at any time, and the API is asked to end it after `timeout_s`; a
        connection that went dead in silence is not noticed here.

        Raises:
            ClusterUnavailable, NotPermitted, VersionTooOld
        """
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...
