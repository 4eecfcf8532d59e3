"""ClusterAccess by lightkube. Imported only when a kubeconfig is given: it costs about 21 MB."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from httpx2 import HTTPError, Timeout
from lightkube import AsyncClient
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.models.core_v1 import NodeAddress
from lightkube.resources import core_v1, discovery_v1

from cloud_server.kubernetes.access import Changed, ClusterUnavailable, Deleted, Snapshot, VersionTooOld
from cloud_server.kubernetes.objects import (
    Address,
    Endpoint,
    EndpointSlice,
    Key,
    KubernetesObject,
    Network,
    Node,
    Service,
)

GONE = 410
REQUEST_TIMEOUT_S = 10.0
SERVICE_LABEL = "kubernetes.io/service-name"


class KubeconfigUnusable(Exception):
    """The kubeconfig cannot be used; the text says why."""


class LightkubeAccess:
    """Reads a cluster's API as a kubeconfig says."""

    def __init__(self, client: AsyncClient) -> None:
        # Its methods are overloaded by kinds with and without a namespace, which one table of kinds cannot follow.
        self._client: Any = client

    @classmethod
    def from_kubeconfig(cls, path: Path) -> LightkubeAccess:
        """Use the current context of a file. Call it where an event loop runs.

        Raises:
            KubeconfigUnusable: the file, or what it names, cannot be used.
        """
        try:
            path.open("rb").close()  # for the system's own words; lightkube says "not found" to whatever it is
            config = KubeConfig.from_file(path).get()
            if config is None:
                raise ConfigError("it has no current context")
            # Not the environment's proxies: they are for what the agents' side of the world reaches.
            return cls(AsyncClient(config, timeout=Timeout(REQUEST_TIMEOUT_S), trust_env=False))
        except OSError as fault:
            raise KubeconfigUnusable(f"{fault.filename or path}: {fault.strerror or fault}") from fault
        except KeyError as fault:
            raise KubeconfigUnusable(f"{path} is no kubeconfig: it has no {fault.args[0]}") from fault
        except yaml.YAMLError as fault:
            raise KubeconfigUnusable(f"{path} is no kubeconfig: it is not YAML") from fault
        except (ConfigError, ValueError, TypeError, AttributeError, AssertionError) as fault:
            raise KubeconfigUnusable(f"{path}: {str(fault) or type(fault).__name__}") from fault

    async def list_all(self, kind: type[KubernetesObject]) -> Snapshot:
        """See ClusterAccess."""
        resource, convert = _KINDS[kind]
        with _mapped():
            items = self._client.list(resource, **_everywhere(resource), chunk_size=500)
            objects = [convert(item) async for item in items]
            return Snapshot(objects, items.resourceVersion)

    async def watch(
        self, kind: type[KubernetesObject], version: str, timeout_s: int
    ) -> AsyncGenerator[Changed | Deleted, None]:
        """See ClusterAccess."""
        resource, convert = _KINDS[kind]
        with _mapped():
            async for event, item in self._client.watch(
                resource, **_everywhere(resource), server_timeout=timeout_s, resource_version=version
            ):
                item_version = item.metadata.resourceVersion
                if event == "DELETED":
                    yield Deleted(_key(item), item_version)
                else:
                    yield Changed(convert(item), item_version)

    async def aclose(self) -> None:
        """See ClusterAccess."""
        await self._client.close()


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except ApiError as error:
        if error.status.code == GONE:
            raise VersionTooOld from error
        raise ClusterUnavailable(error.status.message or f"status {error.status.code}") from error
    except (HTTPError, OSError, ConfigError) as error:
        raise ClusterUnavailable(str(error) or type(error).__name__) from error


def _everywhere(resource: Any) -> dict[str, str]:
    return {} if resource is core_v1.Node else {"namespace": "*"}


def _key(item: Any) -> Key:
    return Key(item.metadata.namespace or "", item.metadata.name)


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
    ready = [
        Endpoint(endpoint.addresses[0], endpoint.nodeName)
        for endpoint in item.endpoints or []
        # None means unknown, which consumers are to take as ready (EndpointConditions in the API's reference).
        if endpoint.addresses and (endpoint.conditions is None or endpoint.conditions.ready is not False)
    ]
    ports = [port for port in item.ports or [] if port.port is not None and (port.protocol or "TCP") == "TCP"]
    return EndpointSlice(
        key=key,
        service=Key(key.namespace, (labels or {}).get(SERVICE_LABEL, "")),
        ports={port.name or "": port.port for port in ports if port.port is not None},
        ready=tuple(ready),
    )


_KINDS: dict[type[KubernetesObject], tuple[Any, Callable[[Any], KubernetesObject]]] = {
    Node: (core_v1.Node, _node),
    Service: (core_v1.Service, _service),
    EndpointSlice: (discovery_v1.EndpointSlice, _slice),
}


def _addresses(texts: Iterator[str]) -> Iterator[Address]:
    for text in texts:
        try:
            yield ipaddress.ip_address(text)
        except ValueError:
            continue  # "None" of a headless service, or a name


def _networks(texts: list[str]) -> Iterator[Network]:
    for text in texts:
        try:
            yield ipaddress.ip_network(text, strict=False)
        except ValueError:
            continue
