"""Reads a cluster by lightkube, as ClusterAccess. Imported only when a kubeconfig is given: it costs about 21 MB."""

from __future__ import annotations

import asyncio
import ipaddress
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from httpx2 import HTTPError, Timeout
from lightkube import AsyncClient
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.models import discovery_v1 as discovery_v1_models
from lightkube.models.authentication_v1 import TokenReviewSpec
from lightkube.models.core_v1 import NodeAddress
from lightkube.operators import not_in
from lightkube.resources import core_v1, discovery_v1
from lightkube.resources.authentication_v1 import TokenReview

from cloud_server.kubernetes.access import (
    Changed,
    ClusterUnavailable,
    Deleted,
    NotPermitted,
    Reviewed,
    Snapshot,
    VersionTooOld,
)
from cloud_server.kubernetes.objects import (
    Address,
    Endpoint,
    EndpointSlice,
    Key,
    KubernetesObject,
    Network,
    Node,
    Pod,
    Service,
    as_address,
)
from cloud_server.kubernetes.thin_pod import ThinPod
from cloud_server.kubernetes.watch_pace import WatchPace
from tunnel.aio.process.files import stamp
from tunnel.core.wire.faults import CLUSTER_KUBECONFIG_UNUSABLE, FaultError

FORBIDDEN = 403
GONE = 410
PAGE_OBJECTS = 100
"""How many objects of a list are read at a time: they are decoded in one go, and nothing else runs meanwhile."""
REQUEST_TIMEOUT_S = 10.0
SERVICE_LABEL = "kubernetes.io/service-name"


class KubeconfigUnusable(FaultError):
    """The kubeconfig cannot be used; the text says why."""

    default_fault = CLUSTER_KUBECONFIG_UNUSABLE


class LightkubeAccess:
    """Reads a cluster's API as a kubeconfig says. It is read again when it changed, since certificates in it end."""

    def __init__(self, client: AsyncClient, path: Path | None = None, files: Sequence[Path] = ()) -> None:
        """Reads through `client`. `path` is the kubeconfig that the client was made by, and `files` are all that are
        looked at for changes; None and none for a client that stays.
        """
        # Its methods are overloaded by kinds with and without a namespace, which one table of kinds cannot follow.
        self._client: Any = client
        self._pace = WatchPace()
        self._pace.install(client)
        self._path = path
        self._files = files
        self._seen = stamp(files)
        self._before: Any = None
        """The client before this one, whose watches go on until they end by themselves; None when there was none."""

    @classmethod
    def from_kubeconfig(cls, path: Path) -> LightkubeAccess:
        """Makes an access by the current context of a kubeconfig. Must be called where an event loop runs.

        Raises:
            KubeconfigUnusable: the file, or what it names, cannot be used.
        """
        client, files = _open(path)
        return cls(client, path, files)

    async def list_all(self, kind: type[KubernetesObject]) -> Snapshot:
        """Returns all objects of a kind, in all namespaces; see ClusterAccess."""
        await self._read_again()
        resource, convert = _KINDS[kind]
        with _mapped():
            items = self._client.list(resource, **_which(resource), chunk_size=PAGE_OBJECTS)
            objects = [convert(item) async for item in items]
            return Snapshot(objects, items.resourceVersion)

    async def watch(
        self, kind: type[KubernetesObject], version: str, timeout_s: int
    ) -> AsyncGenerator[Changed | Deleted, None]:
        """Yields the changes since a version; see ClusterAccess."""
        resource, convert = _KINDS[kind]
        with _mapped():
            async for event, item in self._client.watch(
                resource, **_which(resource), server_timeout=timeout_s, resource_version=version
            ):
                item_version = item.metadata.resourceVersion
                if event == "DELETED":
                    yield Deleted(_key(item), item_version)
                else:
                    yield Changed(convert(item), item_version)

    async def review(self, token: str, audience: str) -> Reviewed:
        """Returns what the API says of a token; see TokenReviewer."""
        await self._read_again()
        asked = TokenReview(spec=TokenReviewSpec(token=token, audiences=[audience]))
        with _mapped():
            said = (await self._client.create(asked)).status
        user = said.user if said is not None else None
        return Reviewed(
            authenticated=said is not None and said.authenticated is True,
            user=(user.username if user is not None else None) or "",
            audiences=tuple((said.audiences if said is not None else None) or ()),
            extra={name: tuple(values) for name, values in ((user.extra if user is not None else None) or {}).items()},
        )

    async def aclose(self) -> None:
        """Closes the connections; see ClusterAccess."""
        for client in (self._client, self._before):
            if client is not None:
                await client.close()

    # Internal

    async def _read_again(self) -> None:
        """Makes a new client when the kubeconfig changed. It is called for each list, since lists are made when a watch
        failed, as it does behind the end of a certificate.

        Raises:
            ClusterUnavailable: the changed kubeconfig cannot be used.
        """
        now = await asyncio.to_thread(stamp, self._files)
        if self._path is None or now == self._seen:
            return
        self._seen = now
        try:
            client, self._files = _open(self._path)
        except KubeconfigUnusable as fault:
            raise ClusterUnavailable(str(fault)) from fault
        self._pace.install(client)
        left, self._before, self._client = self._before, self._client, client
        if left is not None:
            await left.close()


def _open(path: Path) -> tuple[AsyncClient, list[Path]]:
    """Returns a client, and the files that its credentials are in.

    Raises:
        KubeconfigUnusable: the file, or what it names, cannot be used.
    """
    try:
        path.open("rb").close()  # for the system's own words; lightkube says "not found" to whatever it is
        config = KubeConfig.from_file(path).get()
        if config is None:
            raise ConfigError("it has no current context")
        # Not the environment's proxies: they are for what the agents' side of the world reaches.
        client = AsyncClient(config, timeout=Timeout(REQUEST_TIMEOUT_S), trust_env=False)
    except OSError as fault:
        raise KubeconfigUnusable(f"{fault.filename or path}: {fault.strerror or fault}") from fault
    except KeyError as fault:
        raise KubeconfigUnusable(f"{path} is no kubeconfig: it has no {fault.args[0]}") from fault
    except yaml.YAMLError as fault:
        raise KubeconfigUnusable(f"{path} is no kubeconfig: it is not YAML") from fault
    except (ConfigError, ValueError, TypeError, AttributeError, AssertionError) as fault:
        raise KubeconfigUnusable(f"{path}: {str(fault) or type(fault).__name__}") from fault
    user = config.user
    beside = [user.client_cert, user.client_key] if user is not None else []
    return client, [path, *(path.parent / name for name in beside if name)]


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        if error.status.code == GONE:
            raise VersionTooOld from error
        if error.status.code == FORBIDDEN:
            raise NotPermitted(error.status.message or "forbidden") from error
        raise ClusterUnavailable(error.status.message or f"status {error.status.code}") from error
    except (HTTPError, OSError, ConfigError, RuntimeError) as error:
        # RuntimeError: of a client that was closed under a watch, since the kubeconfig changed twice meanwhile.
        raise ClusterUnavailable(str(error) or type(error).__name__) from error
    except (ValueError, TypeError, AttributeError) as error:
        # Of a decoder, or where we look: a proxy's page for people, an object that lacks its metadata.
        raise ClusterUnavailable(f"not what a Kubernetes API says: {error}") from error


def _which(resource: Any) -> dict[str, Any]:
    """Returns which objects of a resource to ask for: those of all namespaces; of pods, those that have not ended. The
    API tells of one that ends as of a deleted one.
    """
    if resource is core_v1.Node:
        return {}
    if resource is ThinPod:
        return {"namespace": "*", "fields": {"status.phase": not_in(["Succeeded", "Failed"])}}
    return {"namespace": "*"}


def _key(item: Any) -> Key:
    return Key(sys.intern(item.metadata.namespace or ""), item.metadata.name)


def _node(item: core_v1.Node) -> Node:
    addresses: list[NodeAddress] = (item.status.addresses if item.status is not None else None) or []
    spec = item.spec
    networks = (spec.podCIDRs or ([spec.podCIDR] if spec.podCIDR else [])) if spec is not None else []
    return Node(
        key=_key(item),
        addresses=frozenset(_addresses(one.address for one in addresses if one.type.endswith("IP"))),
        host_names=frozenset(one.address.lower() for one in addresses if not one.type.endswith("IP")),
        pod_networks=frozenset(_networks(networks)),
    )


def _service(item: core_v1.Service) -> Service:
    spec = item.spec
    if spec is None:
        return Service(key=_key(item))
    ports = [port for port in spec.ports or [] if (port.protocol or "TCP") == "TCP"]
    return Service(
        key=_key(item),
        addresses=frozenset(_addresses(iter(spec.clusterIPs or ([spec.clusterIP] if spec.clusterIP else [])))),
        ports={port.port: port.name or "" for port in ports},
    )


def _slice(item: discovery_v1.EndpointSlice) -> EndpointSlice:
    key = _key(item)
    labels = item.metadata.labels if item.metadata is not None else None
    ports = [port for port in item.ports or [] if port.port is not None and (port.protocol or "TCP") == "TCP"]
    return EndpointSlice(
        key=key,
        service=Key(key.namespace, (labels or {}).get(SERVICE_LABEL, "")),
        ports={port.name or "": port.port for port in ports if port.port is not None},
        endpoints=tuple(_endpoint(one) for one in item.endpoints or [] if one.addresses),
    )


def _endpoint(item: discovery_v1_models.Endpoint) -> Endpoint:
    said = item.conditions
    # None means unknown, which consumers are to take as ready, and serving as ready (EndpointConditions in the API's
    # reference).
    ready = said is None or said.ready is not False
    serving = said.serving if said is not None else None
    return Endpoint(
        tuple(item.addresses),
        item.nodeName,
        ready=ready,
        serving=ready if serving is None else serving,
        of_pod=item.targetRef is not None and item.targetRef.kind == "Pod",
    )


def _pod(item: ThinPod) -> Pod:
    spec, status = item.spec, item.status
    own = [] if spec is None or spec.hostNetwork or status is None else status.podIPs or []
    return Pod(
        key=_key(item),
        node=sys.intern((spec.nodeName if spec is not None else None) or ""),
        addresses=tuple(_addresses(one.ip for one in own if one.ip)),
        leaving=item.metadata.deletionTimestamp is not None,
    )


_KINDS: dict[type[KubernetesObject], tuple[Any, Callable[[Any], KubernetesObject]]] = {
    Node: (core_v1.Node, _node),
    Service: (core_v1.Service, _service),
    EndpointSlice: (discovery_v1.EndpointSlice, _slice),
    Pod: (ThinPod, _pod),
}


def _addresses(texts: Iterator[str]) -> Iterator[Address]:
    for text in texts:
        if (address := as_address(text)) is not None:
            yield address


def _networks(texts: list[str]) -> Iterator[Network]:
    for text in texts:
        try:
            yield ipaddress.ip_network(text, strict=False)
        except ValueError:
            continue
