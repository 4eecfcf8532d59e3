"""Counts the memory that decoded JSON takes, and lets a later state of an object share with the one before."""

from __future__ import annotations

from sys import getsizeof


def held_bytes(value: object, names: frozenset[str] = frozenset()) -> int:
    """Returns how many bytes of memory a value of decoded JSON takes: all of its parts, each as if it had no other
    owner. `names` are those of fields that are in memory once, however many objects have them; they count nothing.
    """
    total, left = 0, [value]
    while left:
        part = left.pop()
        total += getsizeof(part)
        if isinstance(part, dict):
            left.extend(part.keys() - names)
            left.extend(part.values())
        elif isinstance(part, list):
            left.extend(part)
    return total


def sharing(before: object, after: object) -> tuple[object, int]:
    """Returns `after`, made of the parts of `before` wherever they are equal, and how many bytes `before` has to itself
    then. Neither may be changed afterwards.
    """
    if before is after or before == after:
        return before, 0
    if isinstance(before, dict) and isinstance(after, dict):
        shared: dict[object, object] = {}
        own_bytes = getsizeof(before)
        for name, part in after.items():
            shared[name], bytes_ = sharing(before[name], part) if name in before else (part, 0)
            own_bytes += bytes_
        own_bytes += sum(held_bytes(part) + getsizeof(name) for name, part in before.items() if name not in after)
        return shared, own_bytes
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = [sharing(one, other) for one, other in zip(before, after, strict=True)]
        return [part for part, _ in pairs], getsizeof(before) + sum(bytes_ for _, bytes_ in pairs)
    return after, held_bytes(before)
