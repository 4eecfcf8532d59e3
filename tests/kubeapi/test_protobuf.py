from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.kubeapi.protobuf import decode_object


def _field(number: int, value: bytes) -> bytes:
    assert len(value) < 128
    return bytes([number << 3 | 2, len(value)]) + value


def _object(kind: bytes, body: bytes) -> bytes:
    return b"k8s\x00" + _field(1, _field(1, b"authorization.k8s.io/v1") + _field(2, kind)) + _field(2, body)


def test_a_review_is_read() -> None:
    attributes = _field(1, b"default") + _field(2, b"get") + _field(5, b"pods") + _field(6, b"log") + b"\x40\x05"
    assert decode_object(_object(b"SelfSubjectAccessReview", _field(2, _field(1, attributes)))) == {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {
            "resourceAttributes": {"namespace": "default", "verb": "get", "resource": "pods", "subresource": "log"}
        },
    }
    assert decode_object(_object(b"SelfSubjectReview", b""))["spec"] == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"k8s\x00",
        b"k8s\x00\x0a\x7f",
        b"k8s\x00" + b"\xff" * 20,
        _object(b"Pod", b""),
        _object(b"SelfSubjectAccessReview", b"\x0b"),
        _object(b"SelfSubjectAccessReview", b"\x12\x80"),
        _object(b"SelfSubjectRulesReview", _field(2, _field(1, b"\xff"))),
    ],
)
def test_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any text will do
        decode_object(data)


@given(st.binary(max_size=200))
def test_noise_raises_nothing_but_value_errors(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode_object(b"k8s\x00" + data)
