from __future__ import annotations

import json
import tracemalloc
from typing import Any

from tunnel.kubeapi.held import held_bytes, sharing

OBJECT: dict[str, Any] = {
    "a": {"b": ["x" * 100, 2.5, None], "c": {str(number): f"text {number}" for number in range(50)}},
    "d": [{"e": f"{number}" * 10} for number in range(20)],
}


def test_it_counts_what_python_takes() -> None:
    text = json.dumps([OBJECT] * 200)
    tracemalloc.start()
    kept = json.loads(text)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    names = frozenset("abcde") | {str(number) for number in range(50)}
    assert 0.9 * taken < held_bytes(kept, names) < 1.1 * taken
    assert held_bytes(kept) > 1.2 * taken  # names that are in memory once are counted each time


def test_what_is_equal_is_the_same_object_then() -> None:
    after = json.loads(json.dumps(OBJECT))
    assert sharing(OBJECT, after) == (OBJECT, 0)
    assert sharing(OBJECT, after)[0] is OBJECT
    after["d"][3] = {"e": "other", "f": 1}
    after["g"] = 1
    del after["a"]["b"]
    shared, own_bytes = sharing(OBJECT, after)
    assert shared == after
    assert isinstance(shared, dict)
    assert shared["a"]["c"] is OBJECT["a"]["c"]
    assert [one is other for one, other in zip(shared["d"], OBJECT["d"], strict=True)].count(False) == 1
    assert 0 < own_bytes < held_bytes(OBJECT) / 3
    assert sharing(["a", "b"], ["a"]) == (["a"], held_bytes(["a", "b"]))
    assert sharing(OBJECT, None) == (None, held_bytes(OBJECT))
