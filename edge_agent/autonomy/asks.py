"""Reads what a list or a watch asks for, as far as it can be answered from what is kept. It is pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, urlencode

from tunnel.kubeapi.codecs import CODECS, JSON, PROTOBUF, Codec
from tunnel.kubeapi.list_options import Query
from tunnel.kubeapi.negotiation import JSON_TYPES
from tunnel.kubeapi.replica import Item
from tunnel.kubeapi.request_info import RequestInfo

NODE = "node"
"""The identity of the node itself."""
SHARED = "shared"
"""The identity of the agent's own, which lists what several of the node's components want."""
RESERVED = frozenset((NODE, SHARED))
"""No users of the API server; one who is named so is answered by the API server alone."""
DEFAULT_WATCH_S = 1800.0
"""Seconds that a watch without a time-out of its own runs here, the least that an API server gives it (apiserver v0.34
`--min-request-timeout`).
"""
MAX_WATCH_S = 24 * 3600.0
MAX_SCOPE_CHARS = 4096
"""The longest name of a scope; what is longer passes by."""

_PARAMETERS = frozenset(
    ("labelSelector", "fieldSelector", "resourceVersion", "resourceVersionMatch", "limit", "continue", "watch",
     "allowWatchBookmarks", "timeoutSeconds", "timeout", "sendInitialEvents")
)  # fmt: skip
"""What is understood here. A request with anything else is answered by the API server alone."""
_AS_JSON = frozenset(("nodes", "pods", "csinodes"))
"""Resources of the node itself, of which there are few. They are kept in JSON, in which what the kubelet says of them
while the cloud is away can be written into them, and which a person can be shown.
"""
_PROTOBUF_GROUPS = frozenset(("", "apps", "autoscaling", "batch", "policy"))
"""The groups of Kubernetes' own, beside those that end in `.k8s.io`: all of their resources are there in protobuf.
Custom resources are not.
"""
_SECRET = frozenset((("", "secrets"), ("", "tokens")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What one list shows, to one identity. Two lists with other selectors are two scopes."""

    who: str
    """Whose rights it was listed with: NODE, SHARED, or the name of a user."""
    group: str
    version: str
    resource: str
    namespace: str
    """Empty: all of them."""
    label_selector: str
    field_selector: str
    encoding: str
    """The name of a codec."""

    @property
    def codec(self) -> Codec:
        """Returns the codec of its objects."""
        return CODECS[self.encoding]

    @property
    def is_secret(self) -> bool:
        """Returns whether its objects must not lie on a disk in clear."""
        return (self.group, self.resource) in _SECRET

    @property
    def is_single(self) -> bool:
        """Returns whether it is about one object by its name."""
        return self.field_selector.startswith("metadata.name=")

    @property
    def path(self) -> str:
        """Returns the path of its list."""
        prefix = f"/apis/{quote(self.group)}" if self.group else "/api"
        inside = f"/namespaces/{quote(self.namespace, safe='')}" if self.namespace else ""
        return f"{prefix}/{quote(self.version)}{inside}/{quote(self.resource)}"

    def target(self, parameters: Sequence[tuple[str, str]]) -> str:
        """Returns its path with its selectors and further parameters."""
        selectors = [("labelSelector", self.label_selector), ("fieldSelector", self.field_selector)]
        query = urlencode([*(item for item in selectors if item[1]), *parameters])
        return f"{self.path}?{query}" if query else self.path

    def text(self) -> str:
        """Returns it as a text that `scope_of` reads."""
        return json.dumps([self.who, self.group, self.version, self.resource, self.namespace, self.label_selector,
                           self.field_selector, self.encoding])  # fmt: skip

    def spoken(self) -> str:
        """Returns it for a person: `secrets in default, metadata.name=x`."""
        named = f"{self.resource}.{self.group}" if self.group else self.resource
        inside = f" in {self.namespace}" if self.namespace else ""
        selectors = ", ".join(filter(None, (self.label_selector, self.field_selector)))
        return f"{named}{inside}{', ' if selectors else ''}{selectors}"


def scope_of(text: str) -> Scope:
    """Returns the scope that a text names.

    Raises:
        ValueError: it names none.
    """
    parts = json.loads(text)
    if not (isinstance(parts, list) and len(parts) == 8 and all(isinstance(part, str) for part in parts)):
        raise ValueError(f"no scope: {text[:80]}")
    who, group, version, resource, namespace, labels, fields, encoding = parts
    if encoding not in CODECS:
        raise ValueError(f"no encoding: {encoding[:20]}")
    return Scope(
        who=who,
        group=group,
        version=version,
        resource=resource,
        namespace=namespace,
        label_selector=labels,
        field_selector=fields,
        encoding=encoding,
    )


def everything(_item: Item) -> bool:
    """Returns true: all objects of a scope are asked for."""
    return True


class Ask(NamedTuple):
    """A list or a watch of a scope."""

    scope: Scope
    is_watch: bool
    version: str
    """The resourceVersion as it came: empty for the newest, `0` for any."""
    match: str
    """The resourceVersionMatch."""
    is_paged: bool
    """Whether it has a limit."""
    more: str
    """The token for a further page."""
    bookmarks: bool
    initial_events: bool
    timeout_s: float
    query: Query
    """All that was asked for."""
    selects: Callable[[Item], bool] = everything
    """Which of the objects that are kept are asked for: a scope may be answered from one that shows more."""


def read_ask(
    info: RequestInfo, query: Sequence[tuple[str, str]], accept: str | None, who: str, *, is_node: bool
) -> Ask | None:
    """Returns what a request asks for; None when it is no list or watch that can be answered from what is kept.

    Args:
        info: what the request is about.
        query: its parameters.
        accept: its `Accept` header.
        who: the identity that it is made with.
        is_node: whether that is the node's own.
    """
    if not info.is_resource or info.verb not in ("list", "watch") or info.subresource:
        return None
    if info.path.strip("/").split("/").count("watch") or any(key not in _PARAMETERS for key, _ in query):
        return None
    codec = _codec(accept, prefers_json=(is_node and info.resource in _AS_JSON) or not _is_built_in(info.group))
    if codec is None:
        return None
    found = Query(query)
    scope = Scope(
        who=who,
        group=info.group,
        version=info.version,
        resource=info.resource,
        namespace=info.namespace,
        label_selector=found.text("labelSelector"),
        field_selector=found.text("fieldSelector"),
        encoding=codec.name,
    )
    if len(scope.text()) > MAX_SCOPE_CHARS:
        return None
    seconds = found.text("timeoutSeconds")
    return Ask(
        scope=scope,
        is_watch=info.verb == "watch",
        version=found.text("resourceVersion"),
        match=found.text("resourceVersionMatch"),
        is_paged=found.text("limit") not in ("", "0"),
        more=found.text("continue"),
        bookmarks=found.flag("allowWatchBookmarks"),
        initial_events=found.flag("sendInitialEvents"),
        timeout_s=min(float(seconds), MAX_WATCH_S) if _is_count(seconds) else DEFAULT_WATCH_S,
        query=found,
    )


def named_scope(info: RequestInfo, accept: str | None, who: str) -> Scope | None:
    """Returns the scope of the one object that a GET is about; None when it cannot be answered from what is kept.

    It is the same that a list of `metadata.name=NAME` has.
    """
    if not (info.is_resource and info.verb == "get" and info.name) or info.subresource:
        return None
    codec = _codec(accept, prefers_json=info.resource in _AS_JSON)
    if codec is None or "," in info.name or "=" in info.name:
        return None
    return Scope(
        who=who,
        group=info.group,
        version=info.version,
        resource=info.resource,
        namespace=info.namespace,
        label_selector="",
        field_selector=f"metadata.name={info.name}",
        encoding=codec.name,
    )


# Internal

_CODECS: dict[str, Codec] = {PROTOBUF.media_type: PROTOBUF, **dict.fromkeys(JSON_TYPES, JSON)}


def _is_built_in(group: str) -> bool:
    return group in _PROTOBUF_GROUPS or group.endswith(".k8s.io")


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < len(text) < 10 and int(text) > 0


def _codec(accept: str | None, *, prefers_json: bool) -> Codec | None:
    """Returns the first encoding that a client takes whole objects in, or JSON if it takes that as well and that is
    preferred; None when it wants another form, such as a Table, before all others.
    """
    taken: list[Codec] = []
    for clause in (accept or "*/*").split(","):
        media_type, *parameters = (part.strip() for part in clause.split(";"))
        names = {parameter.partition("=")[0]: parameter.partition("=")[2] for parameter in parameters}
        codec = _CODECS.get(media_type)
        if codec is None or names.get("q") in ("0", "0.0"):
            continue
        if "as" in names:
            if not taken:
                return None
            continue
        taken.append(codec)
    if prefers_json and JSON in taken:
        return JSON
    return taken[0] if taken else None
