"""Tells what is different between two configurations, key by key, for people: never with a secret in it."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

MAX_TEXT_CHARS = 200
"""The longest text of one difference. A whole list may stand in a value."""
MASK = "(secret)"


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """One key that is not as it was."""

    key: str
    """The key, such as `cloud.servers`; a table that may come often has the key of all of them: `allow`."""
    text: str
    """What has changed, such as `labels.site: "lyon" -> "paris"` or `allow: + target = "10.0.0.1:22"`."""

    def __str__(self) -> str:
        return self.text if len(self.text) <= MAX_TEXT_CHARS else self.text[: MAX_TEXT_CHARS - 3] + "..."

    def is_of(self, keys: Iterable[str]) -> bool:
        """Returns whether its key is one of these, or in a section that is."""
        return any(self.key == key or self.key.startswith(f"{key}.") for key in keys)


def differences(old: Any, new: Any) -> list[Difference]:
    """Compares two configurations of one class.

    A field with `repr=False` is a secret: that it has changed is told, its old and its new value are not.

    Returns:
        What is different, in the order of the class; nothing for two that are equal.
    """
    return list(_of_table("", old, new))


# Internal


def _of_table(prefix: str, old: Any, new: Any) -> Iterator[Difference]:
    for field in dataclasses.fields(new):
        key = f"{prefix}{field.name}"
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after:
            continue
        if not field.repr:
            yield Difference(key, f"{key}: {_set(before)} -> {_set(after)}")
        elif dataclasses.is_dataclass(before) and dataclasses.is_dataclass(after):
            yield from _of_table(f"{key}.", before, after)
        elif isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _of_map(key, before, after)
        elif isinstance(before, list) and isinstance(after, list):
            yield from _of_list(key, before, after)
        else:
            yield Difference(key, f"{key}: {_shown(before)} -> {_shown(after)}")


def _of_map(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Difference]:
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            within = f"{key}.{name}"
            yield Difference(within, f"{within}: {_shown(old.get(name))} -> {_shown(new.get(name))}")


def _of_list(key: str, old: list[Any], new: list[Any]) -> Iterator[Difference]:
    """Yields what went and what came; where neither did, the order is another one."""
    came = _without(new, old)
    for gone in _without(old, new):
        yield Difference(key, f"{key}: - {_shown(gone)}")
    for one in came:
        yield Difference(key, f"{key}: + {_shown(one)}")
    if not came and len(old) == len(new):
        yield Difference(key, f"{key}: in another order")


def _without(items: list[Any], others: list[Any]) -> list[Any]:
    """Returns the items that are not among the others, each as often as it is not.

    They cannot be hashed, so that their texts find those that may be equal: of a generated file there may be thousands,
    and comparing each with each would take seconds.
    """
    left: defaultdict[str, list[Any]] = defaultdict(list)
    for other in others:
        left[repr(other)].append(other)
    found = []
    for item in items:
        alike = left[repr(item)]
        if item in alike:
            alike.remove(item)
        else:
            found.append(item)
    return found


def _set(value: object) -> str:
    return "none" if value is None else MASK


def _shown(value: object) -> str:
    """Returns a value more or less as it stands in a file; of a table only what differs from its defaults."""
    if value is None:
        return "none"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        pairs = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
        told = [(field, item) for field, item in pairs if item is not None and item != field.default]
        shown = [f"{field.name} = {_shown(item) if field.repr else MASK}" for field, item in told]
        return ", ".join(shown)
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, PurePath):
        value = str(value)
    return json.dumps(value, ensure_ascii=False, default=str)
