"""Lists that come in pieces, and what a hostile box sends for one."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest

from tunnel.kubeapi.listing import MAX_FRAME_BYTES, ListSplitter

LIST: dict[str, Any] = {
    "kind": "PodList",
    "x": ["items", {"items": [{"a": 1}]}],
    "metadata": {"items": "items", "a": {"items": [{}]}},
    "items": [
        *({"n": number, "s": '\\"{}[]" \u1234' * number, "d": [[{"x": "\\"}, {"items": []}]]} for number in range(30)),
        5,
        None,
        {"big": "x" * 5000},
    ],
    "last": "items",
}


def split(text: bytes, sizes: list[int], max_item_bytes: int = 4000, seed: int = 0) -> tuple[list[Any], ListSplitter]:
    splitter, found, at, dice = ListSplitter(max_item_bytes), [], 0, random.Random(seed)
    while at < len(text):
        size = dice.choice(sizes)
        found += [json.loads(item) for item in splitter.feed(text[at : at + size])]
        at += size
    return found, splitter


def feed(splitter: ListSplitter, text: bytes, size: int) -> None:
    for at in range(0, len(text), size):
        for _ in splitter.feed(text[at : at + size]):
            pass


def whole(splitter: ListSplitter, text: bytes, size: int) -> None:
    feed(splitter, text, size)
    splitter.frame()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("indent", [None, 2])
def test_however_it_comes_each_object_is_found(seed: int, indent: int | None) -> None:
    text = json.dumps(LIST, indent=indent).encode()
    found, splitter = split(text, [1, 2, 3, 7, 50, 1000], seed=seed)
    assert found == LIST["items"][:30]
    assert splitter.too_large == 1
    assert splitter.length == len(text)
    assert splitter.frame() == LIST | {"items": [0] * 30 + [5, None, 0]}


def test_another_field_may_have_the_objects() -> None:
    splitter = ListSplitter(100, "pods")
    assert list(splitter.feed(b'{"node":{"a":[{}]},"items":[{}],"pods":[{"b":2}]}')) == [b'{"b":2}']
    assert splitter.frame() == {"node": {"a": [{}]}, "items": [{}], "pods": [0]}


@pytest.mark.parametrize("text", [b"{}", b'{"items":null}', b'{"items":[]}', b' { "items" : [ ] } '])
def test_a_list_may_be_empty(text: bytes) -> None:
    found, splitter = split(text, [1])
    assert found == []
    assert not splitter.frame().get("items")


@pytest.mark.parametrize(
    "text",
    [
        b"", b" " * 1000, b"not json", b"[]", b"5", b'{"items":5}', b'{"items":{}}', b'{"items":"\\ud800"}',
        b'{"items":[{',
        b'{"items":[{}]', b'{"items":[{}]]', b'{"items":[{}}', b'}}}}{"items":[{}]}', b'{"items":[{}]}{"items":[{}]}',
        b'{"items":["a]}', b"[" * 1000, b'{"items":[' + b"[" * 2000 + b"]" * 2000 + b"]}",
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_what_is_no_list_says_so(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        whole(ListSplitter(4000), text, 7)


@pytest.mark.parametrize("part", [b"[", b"]", b" ", b'"a",', b'["', b"{"])
def test_what_is_beside_the_objects_is_bounded(part: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        whole(ListSplitter(1000), b'{"kind":' + part * (2 * MAX_FRAME_BYTES), 4096)


@pytest.mark.parametrize("part", [b"[", b"{}", b'"', b'\\"', b"\\", b"x", b'"x'])
def test_the_work_is_in_proportion_to_the_length(part: bytes) -> None:
    def cost_s(count: int) -> float:
        text, splitter = b'{"items":[{"a":' + part * count, ListSplitter(1000)
        began_s = time.process_time()
        feed(splitter, text, 8192)
        return time.process_time() - began_s

    assert cost_s(200_000) < 20 * max(min(cost_s(50_000) for _ in range(3)), 0.002)
