"""Serves `get`, `list` and `watch` of objects: selectors, pages, Tables, and the last touches before an object is
shown.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import datetime
from typing import Any

from cloud_server.frontends.fleet.completion import completed
from cloud_server.frontends.fleet.mirror import Mirror
from cloud_server.frontends.fleet.objects import internal_address, lease_object, with_heartbeat
from cloud_server.frontends.fleet.options import check_list, check_version
from cloud_server.frontends.fleet.pod_hints import pods_called
from cloud_server.frontends.fleet.pod_names import box_of
from cloud_server.frontends.fleet.pressure import with_usage
from cloud_server.frontends.fleet.resources import LEASE_NAMESPACE, NAMESPACES
from cloud_server.frontends.fleet.routes import ResourceRequest
from cloud_server.frontends.fleet.sight import Sight, agent_of
from cloud_server.frontends.fleet.usage import UsageReader
from tunnel.aio.process.turns import Turns
from tunnel.core.wire.names import close_name, meant
from tunnel.kubeapi.encoding import decode, encode
from tunnel.kubeapi.list_options import check_watch_options
from tunnel.kubeapi.negotiation import wants_table
from tunnel.kubeapi.selectors import FieldRequirement, Selector, parse
from tunnel.kubeapi.status import ApiError, Json, not_found
from tunnel.kubeapi.store import ObjectStore
from tunnel.kubeapi.tables import table
from tunnel.kubeapi.watch import DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S, Sink, WatchOptions, serve_watch

Following = Callable[[Sight, int | None], Callable[[], None]]
MAX_TOKEN_CHARS = 1024
MEASURE_WAIT_S = 1.5
"""Seconds that `kubectl describe node` waits for what the box uses: 0.5 s of it are a first look at the processors."""


class Reads:
    """The reads of all resources that have objects."""

    def __init__(self, mirror: Mirror, store: ObjectStore, usage: UsageReader, clock: Callable[[], datetime]) -> None:
        self._mirror = mirror
        self._store = store
        self._usage = usage
        self._clock = clock

    # Public

    async def get(self, about: ResourceRequest, accept: str | None, sight: Sight) -> Json:
        """Returns one object, or a Table of one row. An object that is hidden is treated as one that is not there.

        Raises:
            ApiError: there is none, or no accepted form.
        """
        as_table = wants_table(accept)
        check_version(about.query, self._store.version)
        resource = about.resource.stored
        if resource == "pods" and sight.shows(box_of(about.namespace, about.name)):
            await self._mirror.freshen(about.namespace, about.name)
        elif resource == "nodes" and not as_table and sight.shows(about.name):
            await self._measure(about.name)
        sight.renew()  # boxes take their time, and what may be seen may be less by then
        item = self._find(resource, about.namespace, about.name, sight)
        if item is None:
            raise not_found(about.resource.group, about.resource.name, about.name, self._meant(about, sight))
        item = self._present(item)
        return self._table(about, [item], {"resourceVersion": str(self._store.version)}) if as_table else item

    async def page(self, about: ResourceRequest, accept: str | None, sight: Sight) -> Json:
        """Returns one page of the objects that are shown, as a list or a Table.

        Others have their turn meanwhile; the page is that of the moment at which it was asked for.

        Raises:
            ApiError: a bad selector or page, or no accepted form.
        """
        as_table = wants_table(accept)
        check_list(about.query, self._store.version)
        if about.resource.name == "pods":
            self._mirror.note_interest()
        selector = _selector(about)
        found = [item for item in self._shown(about, sight) if selector.matches(item)]
        items, metadata = _page(about, found, self._store.version)
        turns = Turns()
        for at, item in enumerate(items):
            items[at] = self._present(item)
            await turns.pause()
        if as_table:
            return self._table(about, items, metadata)
        kind, group_version = about.resource.kind, about.resource.group_version
        return {"kind": f"{kind}List", "apiVersion": group_version, "metadata": metadata, "items": items}

    def watch(
        self, sink: Sink, about: ResourceRequest, accept: str | None, sight: Sight, following: Following
    ) -> Coroutine[Any, Any, None]:
        """Checks what a watch asks for, and returns a coroutine that serves the watch to its end.

        The coroutine raises StreamError.

        `following` makes the check that the watch calls before it sends anything; see `Access.following`.

        Raises:
            ApiError: a bad selector or version, or no accepted form.
        """
        as_table = wants_table(accept)
        check_watch_options(about.query)
        if about.resource.name == "pods":
            self._mirror.note_interest()
        query, resource = about.query, about.resource
        after: int | None = query.number("resourceVersion", 0)
        initial = query.flag("sendInitialEvents")
        after = None if initial or not after else after
        options = WatchOptions(
            resource=resource.stored,
            kind=resource.kind,
            group_version=resource.group_version,
            namespace=about.namespace or None,
            selector=_selector(about),
            after=after,
            bookmarks=query.flag("allowWatchBookmarks"),
            initial_end=initial and query.flag("allowWatchBookmarks"),
            from_now=not initial and bool(query.text("sendInitialEvents")),
            timeout_s=min(query.number("timeoutSeconds", 0) or DEFAULT_TIMEOUT_S, MAX_TIMEOUT_S),
            shown=self._is_shown(sight),
            check=following(sight, after),
        )

        def to_table(items: list[Json], header: bool) -> Json:
            return self._table(about, items, {"resourceVersion": _version_of(items)}, header)

        return serve_watch(sink, self._store, options, self._present, to_table if as_table else None)

    # Internal

    def _shown(self, about: ResourceRequest, sight: Sight) -> list[Json]:
        found, is_shown = self._all(about), self._is_shown(sight)
        return found if is_shown is None else [item for item in found if is_shown(item)]

    def _is_shown(self, sight: Sight) -> Callable[[Json], bool] | None:
        """Returns a function that tells whether an object is shown; None when all are."""
        if sight.everything:
            return None
        return lambda item: self._may_see(item, sight)

    def _may_see(self, item: Json, sight: Sight) -> bool:
        if item["kind"] == "Namespace":
            # Which there are tells of the boxes whose pods are in them.
            name = item["metadata"]["name"]
            return name in NAMESPACES or any(map(sight.shows, self._mirror.boxes_in(name)))
        return sight.shows(agent_of(item))

    def _all(self, about: ResourceRequest) -> list[Json]:
        namespace = about.namespace or None
        if about.resource.name != "leases":
            return self._store.items(about.resource.stored, namespace)
        if namespace not in (None, LEASE_NAMESPACE):
            return []
        return [item for name in self._mirror.names() if (item := self._lease(name))]

    def _find(self, resource: str, namespace: str, name: str, sight: Sight) -> Json | None:
        if resource == "leases":
            item = self._lease(name) if namespace == LEASE_NAMESPACE else None
        else:
            item = self._store.get(resource, (namespace, name))
        return item if item is not None and self._may_see(item, sight) else None

    def _meant(self, about: ResourceRequest, sight: Sight) -> str:
        """Returns the end of the message about an object that is not there."""
        resource = about.resource.stored
        if resource == "pods" and (hint := pods_called(self._mirror, about.namespace, about.name, sight)):
            return hint
        return meant(
            close_name(about.name, lambda name: self._find(resource, about.namespace, name, sight) is not None)
        )

    def _lease(self, name: str) -> Json | None:
        view = self._mirror.view(name)
        if view is None:
            return None
        joined = self._mirror.joined(name)
        renewed = self._clock() if view.connected else view.last_seen or joined
        return lease_object(name, joined, renewed, self._store.version)

    async def _measure(self, name: str) -> None:
        """Measures what a single node's box uses, so that it is at hand; does without where that takes long."""
        if (view := self._mirror.view(name)) is not None:
            with suppress(ApiError):
                await self._usage.read(view, MEASURE_WAIT_S)

    def _present(self, item: Json) -> Json:
        if item["kind"] == "Pod":
            node = self._store.get("nodes", ("", item["spec"]["nodeName"]))
            return completed(item, internal_address(node) if node is not None else "")
        if item["kind"] != "Node":
            return item
        view = self._mirror.view(item["metadata"]["name"])
        if view is None:
            return item
        # The views that the mirror has are of the last change; a connected agent is one that is heard from now.
        seen = self._clock() if view.connected else view.last_seen
        return with_usage(with_heartbeat(item, seen), self._usage.latest(view))

    def _table(self, about: ResourceRequest, items: list[Json], metadata: Json, header: bool = True) -> Json:
        include = about.query.text("includeObject", "Metadata")
        return table(about.resource.name, items, metadata, self._clock(), include, header)


# Internal


def _selector(about: ResourceRequest) -> Selector:
    labels, fields = about.query.text("labelSelector"), about.query.text("fieldSelector")
    selector = parse(about.resource.name, labels, fields)
    if not about.name:
        return selector
    return Selector(selector.labels, (*selector.fields, FieldRequirement("metadata.name", about.name, True)))


def _version_of(items: list[Json]) -> str:
    return items[0]["metadata"].get("resourceVersion", "") if items else ""


def _page(about: ResourceRequest, found: list[Json], version: int) -> tuple[list[Json], Json]:
    """Cuts a page out of sorted objects, and returns it with the metadata of the list. All pages carry the version of
    the first, so that a watch misses nothing.
    """
    limit, token = about.query.number("limit", 0), about.query.text("continue")
    if token:
        version, after = _read_token(token)
        found = [item for item in found if _position(item) > after]
    metadata: Json = {"resourceVersion": str(version)}
    if not limit or len(found) <= limit:
        return found, metadata
    page = found[:limit]
    metadata["continue"] = _token(version, _position(page[-1]))
    metadata["remainingItemCount"] = len(found) - limit
    return page, metadata


def _position(item: Json) -> tuple[str, str]:
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def _token(version: int, after: tuple[str, str]) -> str:
    return base64.urlsafe_b64encode(encode({"v": version, "after": list(after)})).decode("ascii")


def _read_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        parts = decode(base64.b64decode(token, b"-_", validate=True)) if len(token) <= MAX_TOKEN_CHARS else None
    except (ValueError, binascii.Error):
        parts = None
    match parts:
        case {"v": int(version), "after": [str(namespace), str(name)]}:
            return version, (namespace, name)
    raise ApiError(400, "invalid continue token: list again without it")
