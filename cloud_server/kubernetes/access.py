"""Says what is asked of a cluster's API, whatever library does it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import NamedTuple, Protocol

from cloud_server.kubernetes.objects import Key, KubernetesObject
from tunnel.core.wire.faults import CLUSTER_UNAVAILABLE, FaultError


class ClusterUnavailable(FaultError):
    """The API did not answer, or refused; the text says why. It is worth another try."""

    default_fault = CLUSTER_UNAVAILABLE


class NotPermitted(ClusterUnavailable):
    """The account may not read that kind (403 Forbidden); the text is the API's."""


class VersionTooOld(Exception):
    """The changes since that version are forgotten (410 Gone). All objects must be listed anew."""


class Snapshot(NamedTuple):
    """All objects of a kind at one moment."""

    objects: Sequence[KubernetesObject]
    version: str
    """The version from which a watch goes on."""


class Changed(NamedTuple):
    """A change of a watch: an object is new or different."""

    object: KubernetesObject
    version: str


class Deleted(NamedTuple):
    """A change of a watch: an object is gone."""

    key: Key
    version: str


class Reviewed(NamedTuple):
    """What the API says of a token (TokenReview of authentication.k8s.io/v1)."""

    authenticated: bool
    user: str
    """The name of the user that the token is of; empty for a token that is not good."""
    audiences: Sequence[str]
    """Those of the audiences asked for that the token is for."""
    extra: Mapping[str, Sequence[str]]
    """What else is known of the user."""


class TokenReviewer(Protocol):
    """The cluster's API, asked about tokens."""

    async def review(self, token: str, audience: str) -> Reviewed:
        """Returns what the API says of a token that is to be for an audience.

        Raises:
            ClusterUnavailable: the API did not answer, or refused.
        """
        ...


class ClusterAccess(Protocol):
    """The reading of a cluster's API."""

    async def list_all(self, kind: type[KubernetesObject]) -> Snapshot:
        """Returns all objects of a kind, in all namespaces.

        Raises:
            ClusterUnavailable: the API did not answer, or refused.
            NotPermitted: the account may not read that kind.
        """
        ...

    def watch(
        self, kind: type[KubernetesObject], version: str, timeout_s: int
    ) -> AsyncGenerator[Changed | Deleted, None]:
        """Yields the changes since a version. It may end at any time, and the API is asked to end it after `timeout_s`
        seconds; a connection that went dead in silence is not noticed here.

        Raises:
            ClusterUnavailable: the API did not answer, or refused.
            NotPermitted: the account may not read that kind.
            VersionTooOld: all objects must be listed anew.
        """
        ...

    async def aclose(self) -> None:
        """Closes the connections."""
        ...
