"""Reads what a cache needs of Kubernetes objects in protobuf, without their schemas, and leaves all other bytes alone.

Three facts of Kubernetes' generated encodings make that possible (k8s.io/api and k8s.io/apimachinery v0.34):

1. A whole answer, and the object of each event of a watch, is four bytes and a `runtime.Unknown`: the type, and the
   object as raw bytes. The items of a list have no such envelope.
2. Every object has its ObjectMeta as field 1; every list has its ListMeta as field 1 and its items as field 2.
3. A field that is not looked for can be skipped by its wire type.

So an object is kept as the bytes that came, and only its name, its labels and its versions are read. That takes some
20 us for a pod; nothing is copied but what is returned.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

MAGIC = b"k8s\x00"
"""The first bytes of every answer in protobuf (apimachinery `runtime/serializer/protobuf`)."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES = 10

# Field numbers, from the `generated.proto` files.
_UNKNOWN_TYPE, _UNKNOWN_RAW, _UNKNOWN_ENCODING, _UNKNOWN_CONTENT = 1, 2, 3, 4
_TYPE_VERSION, _TYPE_KIND = 1, 2
_METADATA, _ITEMS = 1, 2
_NAME, _NAMESPACE, _UID, _VERSION, _CREATED, _LABELS, _ANNOTATIONS = 1, 3, 5, 6, 8, 11, 12
_EVENT_TYPE, _EVENT_OBJECT, _EXTENSION_RAW = 1, 2, 1
_STATUS_TEXTS, _STATUS_CODE = {3: "message", 4: "reason"}, 6
_KEY, _VALUE = 1, 2
_LIST_VERSION, _LIST_CONTINUE = 2, 3


class Metadata(NamedTuple):
    """What is read of an object."""

    namespace: str
    """Empty for an object of the whole cluster."""
    name: str
    uid: str
    version: str
    """Its resourceVersion; empty where none was given."""
    labels: dict[str, str]


class Envelope(NamedTuple):
    """An object with its type."""

    api_version: str
    kind: str
    raw: bytes
    """The object in protobuf."""


class Field(NamedTuple):
    """The place of a length-delimited field."""

    number: int
    head: int
    """Where its number and size stand."""
    start: int
    end: int
    """Its content is from `start` to before `end`."""


class RawList(NamedTuple):
    """A list that was taken apart."""

    version: str
    """Its resourceVersion, where a watch goes on."""
    more: str
    """The token for the rest of it; empty when this is all."""
    items: list[bytes]


# Reading


def open_envelope(data: bytes) -> Envelope:
    """Returns what is in an answer.

    Raises:
        ValueError: the data is no Kubernetes object in protobuf.
    """
    if not data.startswith(MAGIC):
        raise ValueError("not a Kubernetes object in protobuf")
    api_version = kind = ""
    raw = b""
    for number, _, start, end in fields(data, len(MAGIC)):
        if number == _UNKNOWN_TYPE:
            for inner, _, first, last in fields(data, start, end):
                if inner == _TYPE_VERSION:
                    api_version = data[first:last].decode()
                elif inner == _TYPE_KIND:
                    kind = data[first:last].decode()
        elif number == _UNKNOWN_RAW:
            raw = data[start:end]
    return Envelope(api_version, kind, raw)


def metadata_of(item: bytes) -> Metadata:
    """Returns the metadata of an object without envelope.

    Raises:
        ValueError: the data is no object, or has no name.
    """
    outer = _field_of(item, _METADATA, 0, len(item))
    name = namespace = uid = version = ""
    labels: dict[str, str] = {}
    for number, _, first, last in fields(item, outer.start, outer.end) if outer is not None else ():
        if number == _NAME:
            name = item[first:last].decode()
        elif number == _NAMESPACE:
            namespace = item[first:last].decode()
        elif number == _UID:
            uid = item[first:last].decode()
        elif number == _VERSION:
            version = item[first:last].decode()
        elif number == _LABELS:
            key, value = _entry(item, first, last)
            labels[key] = value
    if not name:
        raise ValueError("an object without a name")
    return Metadata(namespace, name, uid, version, labels)


def split_list(raw: bytes) -> RawList:
    """Returns the parts of a list without envelope.

    Raises:
        ValueError: the data is no list.
    """
    version = more = ""
    items: list[bytes] = []
    for number, _, start, end in fields(raw):
        if number == _ITEMS:
            items.append(raw[start:end])
        elif number == _METADATA:
            for inner, _, first, last in fields(raw, start, end):
                if inner == _LIST_VERSION:
                    version = raw[first:last].decode()
                elif inner == _LIST_CONTINUE:
                    more = raw[first:last].decode()
    return RawList(version, more, items)


def open_event(frame: bytes) -> tuple[str, bytes]:
    """Returns the type of an event of a watch, and its object in an envelope.

    Raises:
        ValueError: the data is no event.
    """
    kind, body = "", b""
    for number, _, start, end in fields(frame):
        if number == _EVENT_TYPE:
            kind = frame[start:end].decode()
        elif number == _EVENT_OBJECT:
            inner = _field_of(frame, _EXTENSION_RAW, start, end)
            body = frame[inner.start : inner.end] if inner is not None else b""
    return kind, body


def open_status(raw: bytes) -> dict[str, object]:
    """Returns message, reason and code of a `Status` without envelope.

    Raises:
        ValueError: the data is none.
    """
    found: dict[str, object] = {"message": "", "reason": "", "code": 0}
    for number, _, start, end in fields(raw):
        if number in _STATUS_TEXTS:
            found[_STATUS_TEXTS[number]] = raw[start:end].decode()
    found["code"] = numbers(raw).get(_STATUS_CODE, 0)
    return found


def version_of(raw: bytes) -> str:
    """Returns the resourceVersion of an object that need not have a name, such as that of a bookmark.

    Raises:
        ValueError: the data is no object.
    """
    return text_at(raw, _METADATA, _VERSION)


def created_of(item: bytes) -> int:
    """Returns when an object was made, in seconds since 1970; 0 where it does not say.

    Raises:
        ValueError: the data is no object.
    """
    metadata = _field_of(item, _METADATA, 0, len(item))
    created = _field_of(item, _CREATED, metadata.start, metadata.end) if metadata is not None else None
    return numbers(item[created.start : created.end]).get(1, 0) if created is not None else 0


def numbers(data: bytes) -> dict[int, int]:
    """Returns the fields of a message that are numbers, the last value of each.

    Raises:
        ValueError: the data is not a protobuf message.
    """
    found = {}
    # `fields` passes numbers by: they stand between two fields of bytes.
    for start, end in _between(data):
        at = start
        while at < end:
            key, at = _varint(data, at, end)
            if key & 7 == _VARINT:
                found[key >> 3], at = _varint(data, at, end)
            else:
                at += _SIZES[key & 7]
    return found


def text_at(item: bytes, *path: int) -> str:
    """Returns the text at a path of field numbers, such as 2, 3 for `spec.clusterIP` of a Service; empty where a field
    on the way is absent, as in a field selector. Of a repeated field it is the last, as protobuf has it.

    Raises:
        ValueError: the data is not a protobuf message, or the field is no text.
    """
    start, end = 0, len(item)
    for number in path:
        field = _field_of(item, number, start, end)
        if field is None:
            return ""
        start, end = field.start, field.end
    return item[start:end].decode()


def fields(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Field]:
    """Yields each length-delimited field of the message in `data[start:end]`; it skips the other fields. None for `end`
    is the end of the data.

    Raises:
        ValueError: there is no protobuf message.
    """
    end = len(data) if end is None else end
    at = start
    while at < end:
        head, key = at, data[at]
        at += 1
        if key >= 0x80:
            key, at = _varint(data, head, end)
        kind = key & 7
        if kind == _BYTES:
            if at < end and data[at] < 0x80:
                size = data[at]
                at += 1
            else:
                size, at = _varint(data, at, end)
            if at + size > end:
                raise ValueError("broken protobuf: a field is longer than its message")
            yield Field(key >> 3, head, at, at + size)
            at += size
        elif kind == _VARINT:
            _, at = _varint(data, at, end)
        else:
            at += _SIZES.get(kind, end - at + 1)
            if at > end:
                raise ValueError("broken protobuf: an unknown wire type, or a field that is not whole")


# Writing


def seal(api_version: str, kind: str, raw: bytes) -> bytes:
    """Returns an object with its envelope, as an API server answers it."""
    type_ = _text(_TYPE_VERSION, api_version) + _text(_TYPE_KIND, kind)
    # An API server writes the empty contentEncoding and contentType, too (fields 3 and 4).
    return b"".join(
        (MAGIC, _head(_UNKNOWN_TYPE, len(type_)), type_, _head(_UNKNOWN_RAW, len(raw)), raw, b"\x1a\x00\x22\x00")
    )


def join_list(version: str, items: list[bytes]) -> bytes:
    """Returns a list without envelope, of items as they came."""
    # ListMeta has selfLink (1), resourceVersion (2) and continue (3), which API servers write though they are empty.
    metadata = _text(1, "") + _text(_LIST_VERSION, version) + _text(_LIST_CONTINUE, "")
    parts = [_head(_METADATA, len(metadata)), metadata]
    for item in items:
        parts += (_head(_ITEMS, len(item)), item)
    return b"".join(parts)


def with_version(item: bytes, version: str) -> bytes:
    """Returns an object under another resourceVersion: the event of a deletion carries the version of its end.

    Raises:
        ValueError: the data is no object.
    """
    outer = _field_of(item, _METADATA, 0, len(item))
    if outer is None:
        raise ValueError("an object without metadata")
    before = after = outer.start
    for number, head, _, end in fields(item, outer.start, outer.end):
        if number == _VERSION:
            before, after = head, end
            break
        if number < _VERSION:  # where there is no version, it stands behind these, as an encoder would write it
            before = after = end
    metadata = b"".join((item[outer.start : before], _text(_VERSION, version), item[after : outer.end]))
    return b"".join((item[: outer.head], _head(_METADATA, len(metadata)), metadata, item[outer.end :]))


def watch_frame(kind: str, body: bytes) -> bytes:
    """Returns an event of a watch with its length before it; `body` is its object in an envelope."""
    extension = _head(_EXTENSION_RAW, len(body)) + body
    frame = b"".join((_text(_EVENT_TYPE, kind), _head(_EVENT_OBJECT, len(extension)), extension))
    return len(frame).to_bytes(4) + frame


def length_delimited(number: int, content: bytes) -> bytes:
    """Returns a field of bytes, whose number must be below 16."""
    return _head(number, len(content)) + content


def bookmark(version: str, annotations: dict[str, str]) -> bytes:
    """Returns an object that has nothing but a version and annotations."""
    parts = [_text(_VERSION, version)]
    for key, value in annotations.items():
        entry = _text(_KEY, key) + _text(_VALUE, value)
        parts.append(_head(_ANNOTATIONS, len(entry)) + entry)
    metadata = b"".join(parts)
    return _head(_METADATA, len(metadata)) + metadata


def status(message: str, reason: str, code: int) -> bytes:
    """Returns a `Status` of a failure, without envelope."""
    texts = _text(2, "Failure") + _text(3, message) + _text(4, reason)
    return b"".join((_head(_METADATA, 0), texts, bytes((_STATUS_CODE << 3 | _VARINT,)), _number(code)))


# Internal


def _between(data: bytes) -> Iterator[tuple[int, int]]:
    at = 0
    for field in fields(data):
        yield at, field.head
        at = field.end
    yield at, len(data)


def _field_of(data: bytes, wanted: int, start: int, end: int) -> Field | None:
    """Returns a field, the last of those with its number; None when it is absent."""
    found = None
    for field in fields(data, start, end):
        if field.number == wanted:
            found = field
    return found


def _entry(data: bytes, start: int, end: int) -> tuple[str, str]:
    """Returns key and value of an entry of a map of texts."""
    key = value = ""
    for number, _, first, last in fields(data, start, end):
        if number == _KEY:
            key = data[first:last].decode()
        elif number == _VALUE:
            value = data[first:last].decode()
    return key, value


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    for position in range(at, min(end, at + _MAX_VARINT_BYTES)):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position + 1
        shift += 7
    raise ValueError("broken protobuf: a number that does not end")


def _text(number: int, text: str) -> bytes:
    data = text.encode()
    return _head(number, len(data)) + data


def _head(number: int, size: int) -> bytes:
    """Returns what stands before a field of bytes: its number, which must be below 16, and its size."""
    return bytes((number << 3 | _BYTES,)) + _number(size)


def _number(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
