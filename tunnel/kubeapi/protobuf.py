"""Decodes the few objects that clients post as `application/vnd.kubernetes.protobuf`.

kubectl from 1.3x on sends its reviews in this form, as kubelets do, and does not fall back to JSON. Answers are always
JSON, which both take. Only the fields that the reviews need are read; field numbers are those of Kubernetes'
`generated.proto` files.
"""

from __future__ import annotations

from collections.abc import Mapping

from tunnel.kubeapi.status import Json
from tunnel.kubeapi.wire_scan import fields, open_envelope

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"

# By field number: a name for a string, a list of one name for repeated strings, a name and fields for a message.
Fields = Mapping[int, "str | list[str] | tuple[str, Fields]"]
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
    "TokenReview": {1: "token", 2: ["audiences"]},
}
_SPEC_FIELD = 2


def decode_object(data: bytes) -> Json:
    """Returns the JSON object that says the same as a review in protobuf.

    Raises:
        ValueError: the data is broken, or is not a review.
    """
    envelope = open_envelope(data)
    spec_fields = _SPECS.get(envelope.kind)
    if spec_fields is None:
        raise ValueError("not a review")
    spec: Json = {}
    for number, _, start, end in fields(envelope.raw):
        if number == _SPEC_FIELD:
            spec = _message(envelope.raw, start, end, spec_fields)
    return {"apiVersion": envelope.api_version, "kind": envelope.kind, "spec": spec}


# Internal


def _message(data: bytes, start: int, end: int, known: Fields) -> Json:
    message: Json = {}
    for number, _, first, last in fields(data, start, end):
        match known.get(number):
            case str(name):
                message[name] = data[first:last].decode()
            case [str(name)]:
                message.setdefault(name, []).append(data[first:last].decode())
            case (str(name), Mapping() as inner):
                message[name] = _message(data, first, last, inner)
    return message
