"""Applies strategic merge patches, in which some lists are merged by a key of their elements. It is pure.

Which lists are, and by which key, is a part of the types (`patchMergeKey` in k8s.io/api v0.34), so that a caller must
say it. The rules are those of apimachinery v0.34 `pkg/util/strategicpatch`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunnel.kubeapi.status import Json

_ORDER, _DELETE = "$setElementOrder/", "$deleteFromPrimitiveList/"
_DIRECTIVE = "$patch"

MergeKeys = Mapping[str, str]
"""By the path of a list, such as `status.conditions`: the name of the member that its elements are known by."""


def merged(base: Json, patch: Json, keys: MergeKeys, path: str = "") -> Json:
    """Returns an object with a patch applied; neither is changed.

    Args:
        base: the object.
        patch: the patch.
        keys: of the lists that are merged; other lists are replaced.
        path: where in the whole object both stand.

    Raises:
        ValueError: the patch makes no sense.
    """
    if patch.get(_DIRECTIVE) == "replace":
        return {name: value for name, value in patch.items() if name != _DIRECTIVE}
    result = dict(base)
    for name, value in patch.items():
        inner = f"{path}.{name}" if path else name
        if name.startswith(_DELETE):
            _delete(result, name.removeprefix(_DELETE), value)
        elif name.startswith("$"):
            continue
        elif value is None or (isinstance(value, dict) and value.get(_DIRECTIVE) == "delete"):
            result.pop(name, None)
        elif isinstance(value, dict):
            known = result.get(name)
            result[name] = merged(known if isinstance(known, dict) else {}, value, keys, inner)
        elif isinstance(value, list) and inner in keys:
            known = result.get(name)
            result[name] = _merged_list(known if isinstance(known, list) else [], value, keys, inner)
        else:
            result[name] = value
    for name, value in patch.items():
        if name.startswith(_ORDER):
            _order(result, name.removeprefix(_ORDER), value, keys, path)
    return result


def difference(base: Json, wanted: Json, keys: MergeKeys, path: str = "") -> Json:
    """Returns a patch that makes `base` what is wanted, and leaves elements of merged lists alone that both have.

    An element that differs is there as a whole: who else has changed it meanwhile, such as the condition `Ready` of a
    node that was away, is not to leave it half as they have it.
    """
    patch: Json = {}
    for name, value in wanted.items():
        before, inner = base.get(name), f"{path}.{name}" if path else name
        if before == value:
            continue
        if isinstance(value, dict) and isinstance(before, dict):
            patch[name] = difference(before, value, keys, inner)
        elif isinstance(value, list) and inner in keys:
            patch[name] = _list_difference(before if isinstance(before, list) else [], value, keys, inner)
        else:
            patch[name] = value
    for name in base.keys() - wanted.keys():
        patch[name] = None
    return patch


# Internal


def _merged_list(base: list[Any], patch: list[Any], keys: MergeKeys, path: str) -> list[Any]:
    key = keys[path]
    if any(isinstance(one, dict) and one.get(_DIRECTIVE) == "replace" for one in patch):
        return [one for one in patch if not (isinstance(one, dict) and _DIRECTIVE in one)]
    result = list(base)
    for element in patch:
        if not isinstance(element, dict) or key not in element:
            raise ValueError(f"an element of {path} without {key}")
        at = next((place for place, one in enumerate(result) if _named(one, key) == element[key]), None)
        if element.get(_DIRECTIVE) == "delete":
            if at is not None:
                del result[at]
        elif at is None:
            result.append(merged({}, element, keys, path))
        else:
            result[at] = merged(result[at], element, keys, path)
    return result


def _list_difference(base: list[Any], wanted: list[Any], keys: MergeKeys, path: str) -> list[Any]:
    key = keys[path]
    if any(len({str(_named(one, key)) for one in side}) < len(side) for side in (base, wanted)) or not all(
        isinstance(one, dict) and key in one for one in (*base, *wanted)
    ):
        return [{_DIRECTIVE: "replace"}, *wanted]  # two of one key, such as two addresses of one type
    known = {str(_named(one, key)): one for one in base}
    changed = []
    for one in wanted:
        before = known.pop(str(_named(one, key)), None)
        if before is None:
            changed.append(one)
        elif before != one:
            changed.append({**dict.fromkeys(before.keys() - one.keys()), **one})
    return [*changed, *({key: one[key], _DIRECTIVE: "delete"} for one in known.values())]


def _named(element: object, key: str) -> object:
    return element.get(key) if isinstance(element, dict) else None


def _delete(result: Json, name: str, values: object) -> None:
    known = result.get(name)
    if isinstance(known, list) and isinstance(values, list):
        result[name] = [one for one in known if one not in values]


def _order(result: Json, name: str, order: object, keys: MergeKeys, path: str) -> None:
    """Puts a merged list into the order that a patch names; elements it does not name stay behind those before them."""
    key, known = keys.get(f"{path}.{name}" if path else name), result.get(name)
    if key is None or not isinstance(known, list) or not isinstance(order, list):
        return
    places = {str(_named(one, key)): place for place, one in enumerate(order)}
    last, weights = -1, []
    for one in known:
        last = places.get(str(_named(one, key)), last)
        weights.append(last)
    result[name] = [one for _, one in sorted(zip(weights, known, strict=True), key=lambda pair: pair[0])]
