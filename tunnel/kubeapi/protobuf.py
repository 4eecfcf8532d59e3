"""Decodes the few objects that clients post as `application/vnd.kubernetes.protobuf`.

kubectl from 1.3x on sends its reviews in this form, and does not fall back to JSON. Answers are always JSON, which it
takes. Only the fields that the reviews need are read; field numbers are those of Kubernetes' `generated.proto` files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tunnel.kubeapi.status import Json

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
_MAX_VARINT_BYTES = 10

# By field number: a name for a string, a list of one name for repeated strings, a name and fields for a message.
Fields = Mapping[int, "str | list[str] | tuple[str, Fields]"]
_TYPE: Fields = {1: "apiVersion", 2: "kind"}
_RESOURCE: Fields = {1: "namespace", 2: "verb", 3: "group", 4: "version", 5: "resource", 6: "subresource", 7: "name"}
_PATH: Fields = {1: "path", 2: "verb"}
_ACCESS: Fields = {1: ("resourceAttributes", _RESOURCE), 2: ("nonResourceAttributes", _PATH)}
_ACCESS_OF: Fields = {**_ACCESS, 3: "user", 4: ["groups"], 6: "uid"}
_SPECS: dict[str, Fields] = {
    "SelfSubjectAccessReview": _ACCESS,
    "SubjectAccessReview": _ACCESS_OF,
    "LocalSubjectAccessReview": _ACCESS_OF,
    "SelfSubjectRulesReview": {1: "namespace"},
    "SelfSubjectReview": {},
}
_SPEC_FIELD = 2
_UNKNOWN_TYPE, _UNKNOWN_RAW = 1, 2


def decode_object(data: bytes) -> Json:
    """Returns the JSON object that says the same as a review in protobuf.

    Raises:
        ValueError: the data is broken, or is not a review.
    """
    if not data.startswith(_MAGIC):
        raise ValueError("not a Kubernetes protobuf object")
    envelope = dict(_fields(data[len(_MAGIC) :]))
    item = _message(envelope.get(_UNKNOWN_TYPE, b""), _TYPE)
    spec_fields = _SPECS.get(item.get("kind", ""))
    if spec_fields is None:
        raise ValueError("not a review")
    body = dict(_fields(envelope.get(_UNKNOWN_RAW, b"")))
    return item | {"spec": _message(body.get(_SPEC_FIELD, b""), spec_fields)}


# Internal


def _message(data: bytes, fields: Fields) -> Json:
    message: Json = {}
    for number, value in _fields(data):
        match fields.get(number):
            case str(name):
                message[name] = value.decode("utf-8")
            case [str(name)]:
                message.setdefault(name, []).append(value.decode("utf-8"))
            case (str(name), Mapping() as inner):
                message[name] = _message(value, inner)
    return message


def _fields(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields number and content of each length-delimited field of a message; it skips the other fields.

    Raises:
        ValueError: the data is not a protobuf message.
    """
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        kind = key & 7
        if kind == _VARINT:
            _, position = _varint(data, position)
            continue
        size = _FIXED_SIZES.get(kind)
        if kind == _BYTES:
            size, position = _varint(data, position)
        if size is None or position + size > len(data):
            raise ValueError("broken protobuf")
        if kind == _BYTES:
            yield key >> 3, data[position : position + size]
        position += size


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if position + index >= len(data):
            break
        byte = data[position + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position + index + 1
    raise ValueError("broken protobuf")
