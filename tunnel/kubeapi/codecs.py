"""The two encodings of Kubernetes objects, read as far as a cache needs it: an object stays the bytes that came."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from tunnel.kubeapi import wire_scan
from tunnel.kubeapi.encoding import decode, encode
from tunnel.kubeapi.replica import Event, Item, item_of
from tunnel.kubeapi.status import Json
from tunnel.kubeapi.wire_scan import Metadata

MAX_FRAME_BYTES = 16 * 1024 * 1024
"""The longest event of a watch: an object has 3 MiB at the most (etcd takes no longer request)."""


class Listed(NamedTuple):
    """A list that was taken apart."""

    api_version: str
    """Of its objects as well."""
    kind: str
    """Of the list, such as `PodList`."""
    version: str
    more: str
    """The token for the rest of it; empty when this is all."""
    items: list[Item]


class Told(NamedTuple):
    """One event of a watch."""

    kind: str
    """`ADDED`, `MODIFIED`, `DELETED`, `BOOKMARK` or `ERROR`."""
    item: Item | None = None
    """None for a bookmark and an error."""
    version: str = ""
    """The version of a bookmark."""
    error: Json | None = None
    """The `Status` of an error; it may be incomplete."""


class Codec(Protocol):
    """One encoding."""

    name: str
    media_type: str
    stream_type: str
    """The media type of a watch."""

    def read_list(self, body: bytes) -> Listed:
        """Returns the parts of a list.

        Raises:
            ValueError: it is none.
        """
        ...

    def read_object(self, body: bytes) -> tuple[str, str, Item]:
        """Returns the version, the kind and the object of an answer that is one object.

        Raises:
            ValueError: it is none.
        """
        ...

    def read_item(self, raw: bytes) -> Item:
        """Returns an object that was kept.

        Raises:
            ValueError: it is none.
        """
        ...

    def name_of(self, body: bytes) -> str:
        """Returns the name of an object that a client sends, and which need not have a version yet.

        Raises:
            ValueError: it is none, or has no name.
        """
        ...

    def frames(self) -> Frames:
        """Returns a reader of the events of one watch."""
        ...

    def whole_list(self, api_version: str, kind: str, version: str, items: list[Item]) -> bytes:
        """Returns the answer that lists these objects."""
        ...

    def whole_object(self, api_version: str, kind: str, item: Item) -> bytes:
        """Returns the answer that is this object."""
        ...

    def event(self, api_version: str, kind: str, event: Event) -> bytes:
        """Returns an event as a watch sends it."""
        ...

    def bookmark(self, api_version: str, kind: str, version: int, *, initial_end: bool) -> bytes:
        """Returns the event that says how far a watch has come."""
        ...

    def error(self, status: Json) -> bytes:
        """Returns the event that ends a watch with an error."""
        ...


class Frames(Protocol):
    """Cuts the body of a watch into its events."""

    def feed(self, data: bytes) -> Iterator[Told]:
        """Takes what came and yields the events that are whole now.

        Raises:
            ValueError: it is no watch, or an event is too long.
        """
        ...


class JsonCodec:
    """Objects in JSON."""

    name = "json"
    media_type = stream_type = "application/json"

    def read_list(self, body: bytes) -> Listed:
        """Returns the parts of a list; each object stays the text that came."""
        outer, texts = _split(body.decode(), "items")
        metadata = _mapping(outer.get("metadata") or {})
        items = [_json_item(parsed, text.encode()) for parsed, text in texts]
        return Listed(
            str(outer.get("apiVersion", "")),
            str(outer.get("kind", "")),
            str(metadata.get("resourceVersion", "")),
            str(metadata.get("continue") or ""),
            items,
        )

    def read_object(self, body: bytes) -> tuple[str, str, Item]:
        """Returns the version, the kind and the object of an answer."""
        parsed = _mapping(decode(body))
        return str(parsed.get("apiVersion", "")), str(parsed.get("kind", "")), _json_item(parsed, body)

    def read_item(self, raw: bytes) -> Item:
        """Returns an object that was kept."""
        return _json_item(_mapping(decode(raw)), raw)

    def name_of(self, body: bytes) -> str:
        """Returns the name of an object that a client sends."""
        name = _mapping(_mapping(decode(body)).get("metadata")).get("name")
        if not isinstance(name, str) or not name:
            raise ValueError("an object without a name")
        return name

    def frames(self) -> Frames:
        """Returns a reader of lines."""
        return _JsonFrames()

    def whole_list(self, api_version: str, kind: str, version: str, items: list[Item]) -> bytes:
        """Returns the answer that lists these objects."""
        head = encode({"kind": kind, "apiVersion": api_version, "metadata": {"resourceVersion": version}})
        # Those that came by a watch have a type, and a list of Kubernetes' own types shows none: clients would have it
        # in their objects. Custom resources have it everywhere, and in another order.
        typed = b'{"kind":"%b","apiVersion":"%b",' % (kind.removesuffix("List").encode(), api_version.encode())
        raws = (b"{" + item.raw[len(typed) :] if item.raw.startswith(typed) else item.raw for item in items)
        return b"".join((head.rstrip()[:-1], b',"items":[', b",".join(raws), b"]}\n"))

    def whole_object(self, api_version: str, kind: str, item: Item) -> bytes:
        """Returns the answer that is this object."""
        return _typed(api_version, kind, item.raw)

    def event(self, api_version: str, kind: str, event: Event) -> bytes:
        """Returns an event as a line."""
        raw = event.item.raw
        if event.version != event.item.version:
            parsed = _mapping(decode(raw))
            parsed["metadata"]["resourceVersion"] = str(event.version)
            raw = encode(parsed).rstrip()
        return b'{"type":"%b","object":%b}\n' % (event.kind.encode(), _typed(api_version, kind, raw).rstrip())

    def bookmark(self, api_version: str, kind: str, version: int, *, initial_end: bool) -> bytes:
        """Returns the event that says how far a watch has come."""
        metadata: Json = {"resourceVersion": str(version), "creationTimestamp": None}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        shown = {"kind": kind, "apiVersion": api_version, "metadata": metadata}
        return encode({"type": "BOOKMARK", "object": shown}).rstrip() + b"\n"

    def error(self, status: Json) -> bytes:
        """Returns the event that ends a watch with an error."""
        return encode({"type": "ERROR", "object": status}).rstrip() + b"\n"


class ProtobufCodec:
    """Objects in protobuf."""

    name = "protobuf"
    media_type = "application/vnd.kubernetes.protobuf"
    stream_type = "application/vnd.kubernetes.protobuf;stream=watch"

    def read_list(self, body: bytes) -> Listed:
        """Returns the parts of a list."""
        envelope = wire_scan.open_envelope(body)
        parts = wire_scan.split_list(envelope.raw)
        return Listed(
            envelope.api_version, envelope.kind, parts.version, parts.more, [self.read_item(raw) for raw in parts.items]
        )

    def read_object(self, body: bytes) -> tuple[str, str, Item]:
        """Returns the version, the kind and the object of an answer."""
        envelope = wire_scan.open_envelope(body)
        return envelope.api_version, envelope.kind, self.read_item(envelope.raw)

    def read_item(self, raw: bytes) -> Item:
        """Returns an object that was kept."""
        return item_of(wire_scan.metadata_of(raw), raw)

    def name_of(self, body: bytes) -> str:
        """Returns the name of an object that a client sends."""
        return wire_scan.metadata_of(wire_scan.open_envelope(body).raw).name

    def frames(self) -> Frames:
        """Returns a reader of frames with their length before them."""
        return _ProtobufFrames()

    def whole_list(self, api_version: str, kind: str, version: str, items: list[Item]) -> bytes:
        """Returns the answer that lists these objects."""
        return wire_scan.seal(api_version, kind, wire_scan.join_list(version, [item.raw for item in items]))

    def whole_object(self, api_version: str, kind: str, item: Item) -> bytes:
        """Returns the answer that is this object."""
        return wire_scan.seal(api_version, kind, item.raw)

    def event(self, api_version: str, kind: str, event: Event) -> bytes:
        """Returns an event as a frame."""
        raw = event.item.raw
        if event.version != event.item.version:
            raw = wire_scan.with_version(raw, str(event.version))
        return wire_scan.watch_frame(event.kind, wire_scan.seal(api_version, kind, raw))

    def bookmark(self, api_version: str, kind: str, version: int, *, initial_end: bool) -> bytes:
        """Returns the event that says how far a watch has come."""
        raw = wire_scan.bookmark(str(version), {"k8s.io/initial-events-end": "true"} if initial_end else {})
        return wire_scan.watch_frame("BOOKMARK", wire_scan.seal(api_version, kind, raw))

    def error(self, status: Json) -> bytes:
        """Returns the event that ends a watch with an error."""
        raw = wire_scan.status(str(status["message"]), str(status["reason"]), int(status["code"]))
        return wire_scan.watch_frame("ERROR", wire_scan.seal("v1", "Status", raw))


JSON, PROTOBUF = JsonCodec(), ProtobufCodec()
CODECS: dict[str, Codec] = {codec.name: codec for codec in (JSON, PROTOBUF)}


# Internal


def _mapping(value: object) -> Json:
    if not isinstance(value, dict):
        raise ValueError("not an object")  # noqa: TRY004 - what came is wrong, and not its caller
    return value


def _json_item(parsed: Json, raw: bytes) -> Item:
    metadata = _mapping(parsed.get("metadata"))
    labels = metadata.get("labels") or {}
    name = metadata.get("name")
    if not isinstance(name, str) or not name or not isinstance(labels, dict):
        raise ValueError("an object without a name")
    namespace, uid, version = (str(metadata.get(key) or "") for key in ("namespace", "uid", "resourceVersion"))
    texts = {str(key): str(value) for key, value in labels.items()}
    return item_of(Metadata(namespace, name, uid, version, texts), raw)


def _split(text: str, inner: str) -> tuple[Json, list[tuple[Json, str]]]:
    """Returns an object without one of its members, and that member's object, or each of its objects, parsed and as
    text.

    Raises:
        ValueError: the text is not an object in JSON.
    """
    try:
        return _scanned(text, inner)
    except RecursionError:
        raise ValueError("JSON that is nested too deeply") from None


def _scanned(text: str, inner: str) -> tuple[Json, list[tuple[Json, str]]]:
    decoder = json.JSONDecoder()
    outer: Json = {}
    found: list[tuple[Json, str]] = []
    at = _past(text, _past_space(text, 0), "{")
    while not text.startswith("}", at):
        name, at = decoder.raw_decode(text, at)
        at = _past(text, _past_space(text, at), ":")
        if name == inner and text.startswith("[", at):
            at = _past(text, at, "[")
            while not text.startswith("]", at):
                item, end = decoder.raw_decode(text, at)
                found.append((_mapping(item), text[at:end]))
                at = _past_comma(text, end, "]")
            at += 1
        else:
            value, end = decoder.raw_decode(text, at)
            if name == inner and value is not None:
                found.append((_mapping(value), text[at:end]))
            else:
                outer[str(name)] = value
            at = end
        at = _past_comma(text, at, "}")
    return outer, found


def _past(text: str, at: int, expected: str) -> int:
    if not text.startswith(expected, at):
        raise ValueError(f"no {expected} where it should be")
    return _past_space(text, at + len(expected))


def _past_comma(text: str, at: int, end: str) -> int:
    at = _past_space(text, at)
    return at if text.startswith(end, at) else _past(text, at, ",")


def _past_space(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _typed(api_version: str, kind: str, raw: bytes) -> bytes:
    """Returns a JSON object with its type. Those of a list have none; those of a watch do."""
    if raw.startswith((b'{"kind":', b'{"apiVersion":')):
        return raw
    rest = raw.lstrip()[1:].lstrip()
    typed = b'{"kind":"%b","apiVersion":"%b"' % (kind.encode(), api_version.encode())
    return typed + (b"}" if rest.startswith(b"}") else b"," + rest)


class _JsonFrames:
    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Told]:
        self._rest += data
        while (end := self._rest.find(b"\n")) >= 0:
            line = bytes(self._rest[:end])
            del self._rest[: end + 1]
            if line.strip():
                yield self._told(line)
        if len(self._rest) > MAX_FRAME_BYTES:
            raise ValueError(f"an event is longer than {MAX_FRAME_BYTES} bytes")

    def _told(self, line: bytes) -> Told:
        outer, objects = _split(line.decode(), "object")
        kind = str(outer.get("type", ""))
        if len(objects) != 1:
            raise ValueError("an event without an object")
        ((parsed, text),) = objects
        if kind == "ERROR":
            return Told(kind, error=parsed)
        if kind == "BOOKMARK":
            return Told(kind, version=str(_mapping(parsed.get("metadata")).get("resourceVersion", "")))
        return Told(kind, _json_item(parsed, text.encode()))


class _ProtobufFrames:
    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[Told]:
        self._rest += data
        while len(self._rest) >= 4:
            size = int.from_bytes(self._rest[:4])
            if size > MAX_FRAME_BYTES:
                raise ValueError(f"an event is longer than {MAX_FRAME_BYTES} bytes")
            if len(self._rest) < 4 + size:
                return
            frame = bytes(self._rest[4 : 4 + size])
            del self._rest[: 4 + size]
            yield self._told(frame)

    def _told(self, frame: bytes) -> Told:
        kind, body = wire_scan.open_event(frame)
        envelope = wire_scan.open_envelope(body)
        if kind == "ERROR":
            return Told(kind, error=wire_scan.open_status(envelope.raw))
        if kind == "BOOKMARK":
            return Told(kind, version=wire_scan.version_of(envelope.raw))
        return Told(kind, item_of(wire_scan.metadata_of(envelope.raw), envelope.raw))
