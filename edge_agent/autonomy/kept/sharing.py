"""Follows a list once that several of the node's components want, by an identity of the agent's own.

Most of what a node asks for is its own affair, and an API server shows a node no more than that. But kubelet,
kube-proxy and CoreDNS all want the Services of the cluster, and two of them its EndpointSlices, each with selectors of
its own: of these each would have a stream. So with `[autonomy] shared_token` such a list is followed as a whole, in the
name of that token's owner, and each component is shown what its selectors select. It may do so once the API server has
said to its own credentials that it may list and watch that.

Nodes are not among them: who wants all of them is the network plugin alone, and of a large cluster they are the most.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from edge_agent.autonomy.asks import SHARED, Ask, Scope
from tunnel.aio.http.http1 import HeaderItems
from tunnel.aio.process.blocking import BlockingCalls, NotAnswering
from tunnel.core.wire.faults import SCOPE_NOT_KEPT
from tunnel.kubeapi.field_values import is_known, value_of
from tunnel.kubeapi.replica import Item
from tunnel.kubeapi.selectors import FieldRequirement, parse_fields, parse_labels
from tunnel.kubeapi.status import ApiError

SHAREABLE = frozenset((
    ("", "services"), ("", "namespaces"), ("discovery.k8s.io", "endpointslices"), ("networking.k8s.io", "servicecidrs"),
    ("node.k8s.io", "runtimeclasses"), ("storage.k8s.io", "csidrivers"),
))  # fmt: skip
"""The resources that the owner of the token may list and watch; deploy/node/reader.yaml grants exactly these."""
AGAIN_S = 30.0
"""Seconds after which a token that could not be read is read again."""
MAX_TOKEN_BYTES = 16 * 1024

_log = structlog.get_logger("edge.autonomy")


def shared_scope(scope: Scope) -> Scope | None:
    """Returns the whole list of which a scope is a part; None when such lists are not shared."""
    if (scope.group, scope.resource) not in SHAREABLE or scope.namespace or scope.is_single:
        return None
    return replace(scope, who=SHARED, label_selector="", field_selector="")


def part_of(ask: Ask) -> Ask | None:
    """Returns what is asked for with a function that picks its objects out of the whole list; None when its selectors
    are not understood here, so that the API server is to read them.
    """
    scope = ask.scope
    try:
        labels = parse_labels(scope.label_selector)
        fields = parse_fields(scope.resource, scope.field_selector)
    except ApiError:
        return None
    if not all(is_known(scope.resource, need.field) for need in fields):
        return None
    if not labels and not fields:
        return ask
    codec = scope.codec

    def meets(item: Item, need: FieldRequirement) -> bool:
        return (value_of(codec, scope.resource, item, need.field) == need.value) is need.equal

    def selects(item: Item) -> bool:
        return all(need.matches(item.metadata.labels) for need in labels) and all(meets(item, need) for need in fields)

    return ask._replace(selects=selects)


class SharedReader:
    """The identity of the agent's own: a token in a file, which may be exchanged."""

    def __init__(self, path: Path | None) -> None:
        """Reads nothing yet. `path` is the file; None: there is no such identity, and nothing is shared."""
        self._path = path
        self._token = ""
        self._calls = BlockingCalls("token of the API proxy")
        self.trouble = ""
        """Why there is no token; empty when there is one, or is to be none."""

    @property
    def is_usable(self) -> bool:
        """Returns whether there was a token when it was looked for last."""
        return bool(self._token)

    async def look(self) -> None:
        """Reads the token."""
        if self._path is None:
            return
        try:
            self._token, trouble = await self._calls.run(partial(_read, self._path)), ""
        except (OSError, ValueError, NotAnswering) as error:
            self._token, trouble = "", f"{self._path}: {getattr(error, 'strerror', None) or error}"
        if trouble and trouble != self.trouble:
            _log.warning("each component of the node has lists of its own", code=SCOPE_NOT_KEPT.code, reason=trouble)
        self.trouble = trouble

    async def there(self) -> None:
        """Waits until there is a token, the one that is in the file now."""
        await self.look()
        while not self.is_usable:
            await asyncio.sleep(AGAIN_S)
            await self.look()

    def headers(self) -> HeaderItems:
        """Returns the header with the token."""
        return [("authorization", f"Bearer {self._token}")]


# Internal


def _read(path: Path) -> str:
    with path.open("rb") as file:
        token = file.read(MAX_TOKEN_BYTES + 1).decode("ascii").strip()
    if not token or len(token) > MAX_TOKEN_BYTES or not token.isprintable() or " " in token:
        raise ValueError("no bearer token")
    return token
