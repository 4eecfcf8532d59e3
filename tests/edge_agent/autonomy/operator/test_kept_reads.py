"""Of objects in protobuf a person sees names, labels and ages; of nothing more is said than is known."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from edge_agent.autonomy.asks import NODE, Scope
from edge_agent.autonomy.operator import kept_reads
from tunnel.kubeapi.codecs import JSON, PROTOBUF
from tunnel.kubeapi.replica import Item
from tunnel.kubeapi.request_info import RequestInfo, request_info
from tunnel.kubeapi.status import ApiError
from tunnel.kubeapi.wire_scan import created_of, length_delimited

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
Json = dict[str, Any]


def in_protobuf(name: str, created: int) -> Item:
    """A Service with a label."""
    number = b""
    while created >= 0x80:
        number += bytes([created & 0x7F | 0x80])
        created >>= 7
    label = length_delimited(11, length_delimited(1, b"app") + length_delimited(2, name.encode()))
    metadata = [length_delimited(1, name.encode()), length_delimited(3, b"ns"), length_delimited(5, b"u"),
                length_delimited(6, b"7"), length_delimited(8, b"\x08" + number + bytes([created])), label]  # fmt: skip
    return PROTOBUF.read_item(length_delimited(1, b"".join(metadata)))


def in_json(name: str, version: int = 7) -> Item:
    text = (
        f'{{"metadata":{{"name":"{name}","namespace":"ns","uid":"u","resourceVersion":"{version}"}},"spec":{{"x":1}}}}'
    )
    return JSON.read_item(text.encode())


def feeds(*items: tuple[str, Item]) -> Any:
    """What is kept of services, each in an encoding."""
    scope = Scope(who=NODE, group="", version="v1", resource="services", namespace="", label_selector="",
                  field_selector="", encoding="json")  # fmt: skip
    kept = [(cast(Any, SimpleNamespace(encoding=encoding)), item) for encoding, item in items]
    return SimpleNamespace(kept_of=lambda *_: kept, all=[SimpleNamespace(scope=scope, is_complete=True)])


def info(query: str = "", name: str = "") -> RequestInfo:
    parameters = [tuple(part.split("~")) for part in query.split("&") if part]
    path = f"/api/v1/namespaces/ns/services{f'/{name}' if name else ''}"
    return request_info("GET", path, cast(Any, parameters))


def rows(said: Json) -> list[list[object]]:
    return [row["cells"] for row in said["rows"]]


def test_names_and_ages_of_what_is_in_protobuf() -> None:
    made = datetime.now(UTC) - timedelta(hours=5)
    two = feeds(("protobuf", in_protobuf("b", int(made.timestamp()))), ("protobuf", in_protobuf("a", 0)))
    said = kept_reads.answer(two, info(), TABLE, "Metadata")
    assert rows(said) == [["a", "<unknown>"], ["b", "5h"]]
    assert said["rows"][1]["object"]["metadata"]["labels"] == {"app": "b"}
    assert rows(kept_reads.answer(two, info("labelSelector~app=b"), TABLE, "None")) == [["b", "5h"]]
    assert rows(kept_reads.answer(two, info(name="b"), TABLE, "None")) == [["b", "5h"]]
    for asked, code in ((info(), 406), (info("fieldSelector~spec.type=x"), 400)):
        with pytest.raises(ApiError) as refused:
            kept_reads.answer(two, asked, "application/json", "Metadata")
        assert refused.value.code == code


def test_of_two_the_one_counts_that_says_more_or_is_newer() -> None:
    several = feeds(("protobuf", in_protobuf("a", 0)), ("json", in_json("a", 6)), ("json", in_json("a", 8)),
                    ("json", in_json("a", 7)), ("protobuf", in_protobuf("b", 0)))  # fmt: skip
    said = kept_reads.answer(several, info(), "application/json", "Metadata")
    assert [item["metadata"]["resourceVersion"] for item in said["items"]] == ["8"]


def test_a_whole_list_that_is_empty_is_one() -> None:
    assert kept_reads.answer(feeds(), info(), "application/json", "Metadata")["items"] == []
    with pytest.raises(ApiError) as refused:
        kept_reads.answer(feeds(), info(name="a"), "application/json", "Metadata")
    assert refused.value.code == 404


def test_when_an_object_was_made() -> None:
    assert created_of(in_protobuf("a", 1_767_323_045).raw) == 1_767_323_045
    assert created_of(length_delimited(1, length_delimited(1, b"a"))) == 0
    assert created_of(b"") == 0
