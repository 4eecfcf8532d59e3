"""The shape of an answer: which fields it always has, and of what type; and what an answer lacks of a shape.

A shape is JSON: the name of a type, a list with the shape of its elements, or an object of shapes by field.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MAPS = (
    "paths",
    "labels",
    "annotations",
    "capacity",
    "allocatable",
    "requests",
    "limits",
    "nodeSelector",
    "overhead",
    "extra",
)
"""Fields whose keys are not those of a schema."""
NOT_OURS = ("managedFields",)
"""Who wrote which field: nothing is written through the fleet API, and clients drop it before they show an object."""


def shape(value: Any) -> Any:
    """The shape of one answer."""
    if isinstance(value, dict):
        return {
            name: "map" if name in MAPS and isinstance(part, dict) else shape(part)
            for name, part in sorted(value.items())
            if name not in NOT_OURS
        }
    if isinstance(value, list):
        return [common([shape(item) for item in value])] if value else []
    return "null" if value is None else type(value).__name__


def common(shapes: list[Any]) -> Any:
    """What several shapes have in common: the fields that are in all of them."""
    first, *rest = shapes
    for other in rest:
        first = _both(first, other)
    return first


def lacks(wanted: Any, value: Any, path: str = "") -> Iterator[str]:
    """What an answer lacks of a shape, each with its path."""
    if isinstance(wanted, dict):
        if not isinstance(value, dict):
            yield f"{path}: not an object but {value!r}"
            return
        for name, part in wanted.items():
            if name not in value:
                yield f"{path}.{name}: not there"
            else:
                yield from lacks(part, value[name], f"{path}.{name}")
    elif isinstance(wanted, list):
        if not isinstance(value, list):
            yield f"{path}: not a list but {value!r}"
            return
        for index, item in enumerate(value if wanted else []):
            yield from lacks(wanted[0], item, f"{path}[{index}]")
    elif wanted == "map":
        if not isinstance(value, dict):
            yield f"{path}: not a map but {value!r}"
    elif shape(value) != wanted and wanted != "null":
        yield f"{path}: not {wanted} but {value!r}"


# Internal


def _both(one: Any, other: Any) -> Any:
    if isinstance(one, dict) and isinstance(other, dict):
        return {name: _both(one[name], other[name]) for name in one if name in other}
    if isinstance(one, list) and isinstance(other, list):
        return [_both(one[0], other[0])] if one and other else one or other
    return one if one == other else "null"
