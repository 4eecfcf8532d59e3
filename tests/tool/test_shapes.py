"""Documents of servers that are not as they must be: the place and what is wrong there, in one line."""

from __future__ import annotations

import json
import time

import pytest

from tests.fuzz.answers import READERS, ToldApi, good_documents
from tunnel.tool.answers import AGENTS, MADE_TOKEN, NODES
from tunnel.tool.api import ApiFailed
from tunnel.tool.shapes import ANY, FLAG, MOMENT, NUMBER, TEXT, Named, Needed, Shape, mismatch


@pytest.mark.parametrize(
    ("document", "shape", "why"),
    [
        ({"a": "x"}, {"a": TEXT}, ""),
        ({}, {"a": TEXT}, ""),
        ({"a": None}, {"a": TEXT}, ""),
        ({}, {"a": Needed(TEXT)}, "a must be a text, and is missing"),
        ({"a": 5}, {"a": TEXT}, "a must be a text, and is a number"),
        ({"a": True}, {"a": NUMBER}, "a must be a number, and is true or false"),
        ({"a": 1}, {"a": FLAG}, "a must be true or false, and is a number"),
        ({"a": [{"b": "x"}, {"b": []}]}, {"a": [{"b": TEXT}]}, "a[1].b must be a text, and is a list"),
        ({"a": {"x": ["y"], "z": None}}, {"a": Named([TEXT])}, ""),
        ({"a": {"x": "y"}}, {"a": Named([TEXT])}, "a.x must be a list, and is a text"),
        ([], {"a": TEXT}, "it must be an object, and is a list"),
        (None, {}, "it must be an object, and is missing"),
        (None, ANY, ""),
        ("2026-01-31T12:00:00Z", MOMENT, ""),
        ("tomorrow", MOMENT, "it must be a time such as 2026-01-31T12:00:00+00:00, and is none"),
        ("2026-01-31T12:00:00", MOMENT, "it must be a time such as 2026-01-31T12:00:00+00:00, and is none"),
    ],
)
def test_what_is_wrong_and_where(document: object, shape: Shape, why: str) -> None:
    assert mismatch(document, shape) == why


def test_the_error_names_server_and_path_and_no_more_of_the_document_than_a_line_holds() -> None:
    api = ToldApi(b'HTTP/1.1 200 OK\r\n\r\n{"token": "t", "until": "soon"}')
    with pytest.raises(
        ApiFailed, match=r"^/nowhere: the answer to POST /x cannot be used: until must be a time .*, and"
    ):
        api.ask("POST", "/x?y=z", {}, MADE_TOKEN)
    long = json.dumps({"agents": [{"labels": {"x": 1}, "facts": [{"text": 5}]}]}).encode()
    with pytest.raises(ApiFailed, match=r"agents\[0\]\.facts\[0\]\.text must be a text"):
        ToldApi(b"HTTP/1.1 200 OK\r\n\r\n" + long).get("/x", AGENTS)
    assert len(mismatch({"\x1b" * 9999: 5}, Named(TEXT))) < 300


@pytest.mark.parametrize("name", READERS)
def test_every_field_of_every_document_that_commands_read_may_be_anything(name: str) -> None:
    """Each value in turn becomes each kind of value, or goes: then the command works, or says what is wrong."""
    told: list[str] = []
    for changed in _changed(good_documents()[name]):
        try:
            READERS[name](ToldApi(b"HTTP/1.1 200 OK\r\n\r\n" + json.dumps(changed).encode()))
        except ApiFailed as error:
            told.append(error.text)
    assert told
    assert all("cannot be used: " in text for text in told)


def _changed(value: object) -> list[object]:
    """A document in all variants with one value in another's place, or without one."""
    variants: list[object] = [None, 5, -1.5, True, "x", [], {}, [None], {"a": None}]
    if isinstance(value, dict):
        for name, one in value.items():
            variants += [{**value, name: other} for other in _changed(one)]
            variants.append({key: kept for key, kept in value.items() if key != name})
    if isinstance(value, list):
        variants += [
            [*value[:index], other, *value[index + 1 :]] for index, one in enumerate(value) for other in _changed(one)
        ]
    return variants


def test_ten_thousand_nodes_are_looked_at_in_a_part_of_a_second() -> None:
    labels = {f"longline/l{number}": "x" for number in range(10)}
    status = {
        "conditions": [{"type": "Ready", "status": "True"}] * 4,
        "addresses": [{"type": "InternalIP", "address": "a"}],
    }
    nodes = {"items": [{"metadata": {"name": "a", "labels": labels}, "status": status}] * 10_000}
    began_s = time.thread_time()
    assert not mismatch(nodes, NODES)
    assert time.thread_time() - began_s < 3
