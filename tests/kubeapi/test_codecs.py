"""Both encodings: what is read is what was written, bytes stay, and events come whole however they are cut."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.kubeapi import wire_scan
from tunnel.kubeapi.codecs import CODECS, JSON, MAX_FRAME_BYTES, PROTOBUF, Codec
from tunnel.kubeapi.replica import Event, Item
from tunnel.kubeapi.status import expired

BOTH = pytest.mark.parametrize("codec", list(CODECS.values()), ids=list(CODECS))


def _text(number: int, text: str) -> bytes:
    return bytes((number << 3 | 2, len(text))) + text.encode()


def made(codec: Codec, name: str, version: int, *, spec: str = "") -> Item:
    """A Service with labels, and a cluster IP."""
    if codec is JSON:
        metadata = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": str(version),
                    "labels": {"a": "b"}}  # fmt: skip
        return codec.read_item(json.dumps({"metadata": metadata, "spec": {"clusterIP": spec}}).encode())
    label = _text(1, "a") + _text(2, "b")
    fields = [(1, name), (3, "ns"), (5, f"uid-{name}"), (6, str(version))]
    metadata_ = b"".join(_text(*field) for field in fields) + bytes((11 << 3 | 2, len(label))) + label
    inner = _text(3, spec)
    raw = bytes((10, len(metadata_))) + metadata_ + bytes((18, len(inner))) + inner
    return codec.read_item(raw)


@BOTH
def test_a_list(codec: Codec) -> None:
    items = [made(codec, "one", 3), made(codec, "two", 4, spec="10.0.0.1")]
    listed = codec.read_list(codec.whole_list("v1", "ServiceList", "77", items))
    assert (listed.api_version, listed.kind, listed.version, listed.more) == ("v1", "ServiceList", "77", "")
    assert listed.items == items
    assert listed.items[0].metadata.labels == {"a": "b"}
    assert codec.read_list(codec.whole_list("v1", "ServiceList", "77", [])).items == []


def test_what_came_by_a_watch_has_no_type_in_a_list_unless_it_is_a_custom_resource() -> None:
    object_ = b'"metadata":{"name":"one","resourceVersion":"3"}}'
    for kind, version, raw, shown in (
        ("Node", "v1", b'{"kind":"Node","apiVersion":"v1",' + object_, b"{" + object_),
        ("Widget", "x.io/v1", (own := b'{"apiVersion":"x.io/v1","kind":"Widget",' + object_), own),
    ):
        item = JSON.read_item(raw)
        assert b'"items":[' + shown + b"]" in JSON.whole_list(version, f"{kind}List", "77", [item])
        assert raw in JSON.event(version, kind, Event("ADDED", item, 3))


@BOTH
def test_an_object(codec: Codec) -> None:
    item = made(codec, "one", 3)
    body = codec.whole_object("v1", "Service", item)
    api_version, kind, read = codec.read_object(body)
    assert (api_version, kind, read.metadata, read.version) == ("v1", "Service", item.metadata, 3)
    assert codec.name_of(body) == "one"


@BOTH
def test_events_however_they_are_cut(codec: Codec) -> None:
    one = made(codec, "one", 3)
    body = b"".join((
        codec.event("v1", "Service", Event("ADDED", one, 3)),
        codec.event("v1", "Service", Event("DELETED", one, 9)),
        codec.bookmark("v1", "Service", 12, initial_end=True),
        codec.error(expired(3, 5).body()),
    ))  # fmt: skip
    for size in (1, 7, len(body)):
        frames = codec.frames()
        told = [event for at in range(0, len(body), size) for event in frames.feed(body[at : at + size])]
        assert [event.kind for event in told] == ["ADDED", "DELETED", "BOOKMARK", "ERROR"]
        assert [event.item.version for event in told if event.item is not None] == [3, 9]
        assert told[1].item is not None
        assert told[1].item.metadata._replace(version="3") == one.metadata
        assert told[2].version == "12"
        assert told[3].error is not None
        assert (told[3].error["code"], told[3].error["reason"]) == (410, "Expired")


@BOTH
def test_what_is_no_watch_is_refused(codec: Codec) -> None:
    garbage = [b"\xff" * 40 + b"\n", b"{}\n", b'{"type":"ADDED","object":1}\n', b"[1]\n", b'{"type":"ADDED"\n',
               b"\x00\x00\x00\x02zz", b"\x00\x00\x00\x00"]  # fmt: skip
    refused = 0
    for data in garbage:
        try:
            list(codec.frames().feed(data))
        except ValueError:
            refused += 1
    assert refused >= 3


def test_an_event_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than"):
        list(JSON.frames().feed(b"x" * (MAX_FRAME_BYTES + 1)))
    with pytest.raises(ValueError, match="longer than"):
        list(PROTOBUF.frames().feed(b"\xff\xff\xff\xff"))


def test_items_of_json_stay_as_they_came() -> None:
    odd = '{ "metadata" : {"name":"a","resourceVersion":"5", "x":1e3}, "z":"\\u00e9" , "n": 1.0 }'
    body = f'{{"apiVersion":"v1", "items": [ {odd} , {odd} ],"kind":"XList","metadata":{{"resourceVersion":"9"}}}}'
    listed = JSON.read_list(body.encode())
    assert [item.raw.decode() for item in listed.items] == [odd, odd]
    assert (listed.kind, listed.version) == ("XList", "9")
    typed = json.loads(JSON.whole_object("v1", "X", listed.items[0]))
    assert (typed["kind"], typed["apiVersion"], typed["z"]) == ("X", "v1", "é")


def test_a_list_without_items_is_empty() -> None:
    assert JSON.read_list(b'{"kind":"XList","metadata":{"resourceVersion":"9"},"items":null}').items == []


@pytest.mark.parametrize("body", [
    b"", b"[]", b"{", b'{"items":[1]}', b'{"items":[{}]}', b'{"items":[{"metadata":{"name":"a"}}]}',
    b'{"items":[{"metadata":{"name":"","resourceVersion":"1"}}]}', b"\xff\xfe", b'{"items":' + b"[" * 100_000,
    b'{"items":[{"metadata":{"name":"a","resourceVersion":"1"}}', b"1", b'{"a" 1}',
])  # fmt: skip
def test_what_is_no_list_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".*"):
        JSON.read_list(body)


@given(st.binary(max_size=60))
def test_rubbish_in_protobuf_is_refused_or_read(body: bytes) -> None:
    for read in (PROTOBUF.read_list, PROTOBUF.read_object, lambda data: list(PROTOBUF.frames().feed(data))):
        try:
            read(wire_scan.MAGIC + body)
        except ValueError:
            continue


def test_versions_of_a_status_in_protobuf() -> None:
    for code, after in pairwise((1, 127, 128, 410, 70000)):
        raw = wire_scan.status("gone", "Expired", code)
        assert wire_scan.open_status(raw) == {"message": "gone", "reason": "Expired", "code": code}, after
