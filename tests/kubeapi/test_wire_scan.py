"""Objects in protobuf, written by Google's own encoder from descriptions of Kubernetes' messages, and read by ours."""

from __future__ import annotations

import contextlib
from functools import cache
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st

from tunnel.kubeapi.wire_scan import (
    Metadata,
    fields,
    join_list,
    metadata_of,
    open_envelope,
    seal,
    split_list,
    text_at,
    with_version,
)

TEXT, MESSAGE, INT64, DOUBLE = (
    descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
    descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE,
    descriptor_pb2.FieldDescriptorProto.TYPE_INT64,
    descriptor_pb2.FieldDescriptorProto.TYPE_DOUBLE,
)
SCHEMA: dict[str, list[tuple[str, int, int, str]]] = {
    # apimachinery meta/v1 and core/v1 generated.proto, as far as is needed here
    "Entry": [("key", 1, TEXT, ""), ("value", 2, TEXT, "")],
    "Managed": [("manager", 1, TEXT, ""), ("operation", 2, TEXT, "")],
    "ObjectMeta": [
        ("name", 1, TEXT, ""),
        ("generateName", 2, TEXT, ""),
        ("namespace", 3, TEXT, ""),
        ("selfLink", 4, TEXT, ""),
        ("uid", 5, TEXT, ""),
        ("resourceVersion", 6, TEXT, ""),
        ("generation", 7, INT64, ""),
        ("labels", 11, MESSAGE, "*Entry"),
        ("annotations", 12, MESSAGE, "*Entry"),
        ("managedFields", 17, MESSAGE, "*Managed"),
    ],
    "ServiceSpec": [("clusterIP", 3, TEXT, ""), ("weight", 14, DOUBLE, "")],
    "Service": [("metadata", 1, MESSAGE, "ObjectMeta"), ("spec", 2, MESSAGE, "ServiceSpec")],
    "ListMeta": [
        ("selfLink", 1, TEXT, ""),
        ("resourceVersion", 2, TEXT, ""),
        ("continue", 3, TEXT, ""),
        ("remaining", 4, INT64, ""),
    ],
    "ServiceList": [("metadata", 1, MESSAGE, "ListMeta"), ("items", 2, MESSAGE, "*Service")],
    "TypeMeta": [("apiVersion", 1, TEXT, ""), ("kind", 2, TEXT, "")],
    "Unknown": [("typeMeta", 1, MESSAGE, "TypeMeta"), ("raw", 2, 12, ""), ("ce", 3, TEXT, ""), ("ct", 4, TEXT, "")],
}
names = st.text(max_size=10) | st.sampled_from(["x" * 127, "y" * 128, "z" * 20000])
filled = names.filter(bool)


@cache
def messages() -> dict[str, Any]:
    """Google's classes of the messages above."""
    file = descriptor_pb2.FileDescriptorProto(name="k8s.proto", package="k8s", syntax="proto2")
    for name, members in SCHEMA.items():
        message = file.message_type.add(name=name)
        for field, number, kind, of in members:
            label = 3 if of.startswith("*") else 1
            type_name = f".k8s.{of.lstrip('*')}" if of else None
            message.field.add(name=field, number=number, type=kind, label=label, type_name=type_name)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"k8s.{name}")) for name in SCHEMA}


@st.composite
def services(draw: st.DrawFn) -> Any:
    """A Service, of which much may be absent; labels have each key once, as a map's do."""
    service = messages()["Service"]()
    metadata = service.metadata
    metadata.name = draw(filled)
    for name in ("generateName", "namespace", "selfLink", "uid", "resourceVersion"):
        if (text := draw(st.none() | names)) is not None:
            setattr(metadata, name, text)
    if draw(st.booleans()):
        metadata.generation = draw(st.integers(0, 2**63 - 1))
    for key, value in draw(st.dictionaries(names, names, max_size=4)).items():
        metadata.labels.add(key=key, value=value)
    for key, value in draw(st.dictionaries(names, names, max_size=2)).items():
        metadata.annotations.add(key=key, value=value)
    for manager in draw(st.lists(names, max_size=3)):
        metadata.managedFields.add(manager=manager)
    if draw(st.booleans()):
        service.spec.clusterIP = draw(names)
        service.spec.weight = 1.5
    return service


@given(services())
def test_the_metadata_of_an_object_is_read(service: Any) -> None:
    metadata = service.metadata
    assert metadata_of(service.SerializeToString()) == Metadata(
        metadata.namespace,
        metadata.name,
        metadata.uid,
        metadata.resourceVersion,
        {label.key: label.value for label in metadata.labels},
    )
    assert text_at(service.SerializeToString(), 2, 3) == service.spec.clusterIP
    assert text_at(service.SerializeToString(), 5, 3) == ""


@given(services(), names)
def test_another_version_changes_nothing_else_and_stands_where_an_encoder_puts_it(service: Any, version: str) -> None:
    before = service.SerializeToString()
    service.metadata.resourceVersion = version
    assert with_version(before, version) == service.SerializeToString()


@given(st.lists(services(), max_size=3), names)
def test_a_list_is_taken_apart_and_put_together(items: list[Any], version: str) -> None:
    made = messages()["ServiceList"]()
    made.metadata.selfLink, made.metadata.resourceVersion = "", version
    setattr(made.metadata, "continue", "")
    for item in items:
        made.items.add().CopyFrom(item)
    raw = made.SerializeToString()
    split = split_list(raw)
    assert (split.version, split.more) == (version, "")
    assert split.items == [item.SerializeToString() for item in items]
    assert join_list(version, split.items) == raw


def test_a_list_that_goes_on_and_its_watch_version() -> None:
    made = messages()["ServiceList"]()
    made.metadata.resourceVersion, made.metadata.remaining = "17", 3
    setattr(made.metadata, "continue", "token")
    assert split_list(made.SerializeToString())[:2] == ("17", "token")


@given(services(), names, names)
def test_an_envelope_is_that_of_an_api_server(service: Any, api_version: str, kind: str) -> None:
    made = messages()["Unknown"]()
    made.typeMeta.apiVersion, made.typeMeta.kind = api_version, kind
    made.raw, made.ce, made.ct = service.SerializeToString(), "", ""
    sealed = b"k8s\x00" + made.SerializeToString()
    assert seal(api_version, kind, service.SerializeToString()) == sealed
    assert open_envelope(sealed) == (api_version, kind, service.SerializeToString())


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",
        b"\x0a\x05abc",
        b"\x0b",
        b"\x09\x00",
        b"\x0d\x00",
        b"\x08",
        b"\xff" * 12,
        b"\x0a" + b"\xff" * 11,
        b"\x0f",
    ],
)
def test_what_is_no_message_is_told(data: bytes) -> None:
    with pytest.raises(ValueError, match="broken protobuf"):
        list(fields(data))


def test_what_is_no_object_is_told() -> None:
    with pytest.raises(ValueError, match="without a name"):
        metadata_of(b"")
    with pytest.raises(ValueError, match="without metadata"):
        with_version(b"\x12\x00", "5")
    with pytest.raises(ValueError, match="not a Kubernetes object"):
        open_envelope(b"{}")


@given(st.binary(max_size=300))
def test_noise_raises_nothing_but_value_errors(data: bytes) -> None:
    for read in (metadata_of, split_list, lambda noise: with_version(noise, "1"), lambda noise: text_at(noise, 1, 1)):
        with contextlib.suppress(ValueError):
            read(data)
    with contextlib.suppress(ValueError):
        open_envelope(b"k8s\x00" + data)
