"""Parses label and field selectors, as `-l` and `--field-selector` take them, and matches objects against them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tunnel.kubeapi.status import ApiError, Json

MAX_SELECTOR_CHARS = 16 * 1024

_KEY = r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_SET = re.compile(rf"\s*({_KEY})\s+(in|notin)\s*\(([^()]*)\)\s*")
_COMPARE = re.compile(rf"\s*({_KEY})\s*(==|=|!=)\s*({_VALUE})\s*")
_NUMBER = re.compile(rf"\s*({_KEY})\s*([<>])\s*(-?\d+)\s*")
_EXISTS = re.compile(rf"\s*(!?)\s*({_KEY})\s*")
_VALUE_ONLY = re.compile(_VALUE)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on a label."""

    key: str
    operator: str
    """`in`, `notin`, `exists`, `absent`, `<` or `>`."""
    values: frozenset[str] = frozenset()

    def matches(self, labels: Json) -> bool:
        """Returns whether an object's labels meet the condition. An absent label meets `notin`, as in Kubernetes."""
        value = labels.get(self.key)
        match self.operator:
            case "exists":
                return value is not None
            case "absent":
                return value is None
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
        return self._compares(value)

    def _compares(self, value: object) -> bool:
        if not isinstance(value, str) or not re.fullmatch(r"-?\d{1,18}", value):
            return False
        (bound,) = self.values
        return int(value) < int(bound) if self.operator == "<" else int(value) > int(bound)


@dataclass(frozen=True, slots=True)
class FieldRequirement:
    """One condition on a field."""

    field: str
    value: str
    equal: bool


@dataclass(frozen=True, slots=True)
class Selector:
    """The conditions that an object must meet to be in a list or watch; without any, all objects are."""

    labels: tuple[Requirement, ...] = ()
    fields: tuple[FieldRequirement, ...] = ()

    def matches(self, item: Json) -> bool:
        """Returns whether an object meets all conditions."""
        labels = item["metadata"].get("labels") or {}
        return all(need.matches(labels) for need in self.labels) and all(
            (field_value(item, need.field) == need.value) is need.equal for need in self.fields
        )


_COMMON_FIELDS = ("metadata.name", "metadata.namespace")
_FIELDS = {
    "nodes": (*_COMMON_FIELDS, "spec.unschedulable"),
    "pods": (*_COMMON_FIELDS, "spec.nodeName", "spec.restartPolicy", "status.phase", "status.podIP"),
    "namespaces": (*_COMMON_FIELDS, "status.phase"),
    "leases": _COMMON_FIELDS,
}


def parse(resource: str, label_selector: str, field_selector: str) -> Selector:
    """Returns the selector that a list or watch asks for by a label selector and a field selector.

    Raises:
        ApiError: 400, one of them cannot be parsed; the message says what is wrong.
    """
    return Selector(parse_labels(label_selector), parse_fields(resource, field_selector))


def parse_labels(text: str) -> tuple[Requirement, ...]:
    """Returns the conditions of a label selector; the empty text has none.

    Raises:
        ApiError: 400, it cannot be parsed; the message says what is wrong.
    """
    _check_length(text)
    requirements: list[Requirement] = []
    position = 0
    while text[position:].strip():
        requirement, position = _next_requirement(text, position)
        requirements.append(requirement)
        if position < len(text):
            if text[position] != "," or not text[position + 1 :].strip():
                raise _unreadable(text, position)
            position += 1
    return tuple(requirements)


def parse_fields(resource: str, text: str) -> tuple[FieldRequirement, ...]:
    """Returns the conditions of a field selector such as `a=b,c!=d`; the empty text has none.

    Resources that have no objects here (events) take any field.

    Raises:
        ApiError: 400, it cannot be parsed, or the resource has no such field; the message says what is wrong.
    """
    _check_length(text)
    known = _FIELDS.get(resource)
    requirements = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = re.fullmatch(r"([A-Za-z.]+)\s*(==|=|!=)(.*)", part)
        if match is None:
            raise ApiError(400, f"invalid field selector {part!r}: expected field=value or field!=value")
        field, operator, value = match.groups()
        if known is not None and field not in known:
            raise ApiError(400, f'"{field}" is not a known field selector: only {_quoted(known)} for {resource}')
        requirements.append(FieldRequirement(field, value, operator != "!="))
    return tuple(requirements)


def field_value(item: Json, path: str) -> str:
    """Returns the value of a field as a selector sees it.

    An absent field is the empty string (`false` for `spec.unschedulable`), booleans are `true` and `false`.
    """
    value: object = item
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    if isinstance(value, bool):
        return str(value).lower()
    if path == "spec.unschedulable":
        return "false"
    return value if isinstance(value, str) else ""


# Internal


def _next_requirement(text: str, position: int) -> tuple[Requirement, int]:
    if match := _SET.match(text, position):
        values = [value.strip() for value in match[3].split(",")]
        if not all(_VALUE_ONLY.fullmatch(value) for value in values):
            raise _unreadable(text, position)
        return Requirement(match[1], match[2], frozenset(values)), match.end()
    if match := _COMPARE.match(text, position):
        operator = "notin" if match[2] == "!=" else "in"
        return Requirement(match[1], operator, frozenset([match[3]])), match.end()
    if match := _NUMBER.match(text, position):
        return Requirement(match[1], match[2], frozenset([match[3]])), match.end()
    if match := _EXISTS.match(text, position):
        return Requirement(match[2], "absent" if match[1] else "exists"), match.end()
    raise _unreadable(text, position)


def _check_length(text: str) -> None:
    if len(text) > MAX_SELECTOR_CHARS:
        raise ApiError(400, f"a selector is longer than {MAX_SELECTOR_CHARS} characters")


def _unreadable(text: str, position: int) -> ApiError:
    return ApiError(400, f"unable to parse label selector {text!r} at {text[position : position + 40]!r}")


def _quoted(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in names)
