"""EndpointSlices with the node's own pods as they are, in both encodings, and all other bytes as they came."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tunnel.kubeapi.codecs import JSON, PROTOBUF, Codec
from tunnel.kubeapi.endpoint_slices import LocalPod, publishes_unready, with_local_pods
from tunnel.kubeapi.wire_scan import fields, length_delimited, numbers, text_at

Endpoint = tuple[str, str, bool, bool]
"""Address, uid of the pod, ready, terminating."""


def as_json(address_type: str, endpoints: list[Endpoint]) -> bytes:
    made = [
        {"addresses": [address], "conditions": {"ready": ready, "serving": ready, "terminating": ending},
         "targetRef": {"kind": "Pod", "uid": uid}, "nodeName": "n"}
        for address, uid, ready, ending in endpoints
    ]  # fmt: skip
    metadata = {"name": "s", "resourceVersion": "5"}
    return json.dumps({"metadata": metadata, "endpoints": made, "addressType": address_type, "ports": []}).encode()


def as_protobuf(address_type: str, endpoints: list[Endpoint]) -> bytes:
    parts = [length_delimited(1, length_delimited(1, b"s"))]
    for address, uid, ready, ending in endpoints:
        conditions = bytes((8, ready, 16, ready, 24, ending))
        target = length_delimited(1, b"Pod") + length_delimited(4, uid.encode())
        inner = [(1, address.encode()), (2, conditions), (4, target), (6, b"n")]
        parts.append(length_delimited(2, b"".join(length_delimited(*one) for one in inner)))
    return b"".join((*parts, length_delimited(3, b""), length_delimited(4, address_type.encode())))


def shown(kind: str, raw: bytes) -> list[Endpoint]:
    if kind == "json":
        return [
            (one["addresses"][0], one["targetRef"]["uid"], one["conditions"]["ready"], one["conditions"]["terminating"])
            for one in json.loads(raw)["endpoints"]
        ]
    found = []
    for number, _, start, end in fields(raw):
        if number == 2:
            one = raw[start:end]
            conditions = next(numbers(one[first:last]) for inner, _, first, last in fields(one) if inner == 2)
            assert text_at(one, 6) == "n"
            found.append((text_at(one, 1), text_at(one, 4, 4), bool(conditions[1]), bool(conditions[3])))
    return found


KINDS: dict[str, tuple[Codec, Callable[[str, list[Endpoint]], bytes]]] = {
    "json": (JSON, as_json),
    "protobuf": (PROTOBUF, as_protobuf),
}
MOVED = LocalPod(("10.0.0.9", "fd00::9"), is_ready=True, overrides=False)
GONE = LocalPod((), is_ready=False, overrides=True)
"""A pod that is not started again yet."""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("before", "pod", "after"), [
    (("10.0.0.1", "a", True, False), MOVED, ("10.0.0.9", "a", True, False)),
    (("10.0.0.1", "a", False, False), MOVED, ("10.0.0.9", "a", True, False)),
    (("10.0.0.1", "a", True, False), MOVED._replace(is_ready=False), ("10.0.0.9", "a", False, False)),
    (("10.0.0.9", "a", False, False), MOVED, ("10.0.0.9", "a", False, False)),
    (("10.0.0.9", "a", False, False), MOVED._replace(overrides=True), ("10.0.0.9", "a", True, False)),
    (("10.0.0.1", "a", True, True), MOVED, ("10.0.0.1", "a", True, True)),
    (("10.0.0.1", "b", True, False), MOVED, ("10.0.0.1", "b", True, False)),
    (("10.0.0.1", "a", True, False), MOVED._replace(addresses=()), ("10.0.0.1", "a", True, False)),
    (("10.0.0.1", "a", True, False), GONE, ("10.0.0.1", "a", False, False)),
    (("10.0.0.1", "a", True, True), GONE, ("10.0.0.1", "a", True, True)),
    (("10.0.0.1", "a", True, False), GONE._replace(overrides=False), ("10.0.0.1", "a", True, False)),
])  # fmt: skip
def test_one_endpoint(kind: str, before: Endpoint, pod: LocalPod, after: Endpoint) -> None:
    codec, make = KINDS[kind]
    others: list[Endpoint] = [("10.0.0.7", "x", True, False), ("10.0.0.8", "y", False, False)]
    raw = make("IPv4", [others[0], before, others[1]])
    made = with_local_pods(raw, codec, {"a": pod})
    assert shown(kind, made) == [others[0], after, others[1]]
    if before == after:
        assert made == raw


@pytest.mark.parametrize("kind", KINDS)
def test_each_slice_gets_addresses_of_its_type(kind: str) -> None:
    codec, make = KINDS[kind]
    made = with_local_pods(make("IPv6", [("fd00::1", "a", True, False)]), codec, {"a": MOVED})
    assert shown(kind, made) == [("fd00::9", "a", True, False)]
    only_v4 = MOVED._replace(addresses=("10.0.0.9",))
    raw = make("IPv6", [("fd00::1", "a", True, False)])
    assert with_local_pods(raw, codec, {"a": only_v4}) == raw


@pytest.mark.parametrize("kind", KINDS)
def test_a_service_that_publishes_unready_pods_keeps_them(kind: str) -> None:
    codec, make = KINDS[kind]
    raw = make("IPv4", [("10.0.0.1", "a", True, False)])
    moved = MOVED._replace(is_ready=False, overrides=True)
    made = with_local_pods(raw, codec, {"a": moved}, publishes_unready=True)
    assert shown(kind, made) == [("10.0.0.9", "a", True, False)]
    assert with_local_pods(raw, codec, {"a": GONE}, publishes_unready=True) == raw


def test_a_service_says_whether_it_publishes_unready_pods() -> None:
    spec = length_delimited(3, b"None")
    services: list[tuple[Codec, bytes, bool]] = [
        (JSON, b'{"spec":{"publishNotReadyAddresses":true}}', True),
        (JSON, b'{"spec":{}}', False),
        (JSON, b"{}", False),
        (PROTOBUF, length_delimited(2, spec + bytes((13 << 3, 1))), True),
        (PROTOBUF, length_delimited(2, spec), False),
        (PROTOBUF, b"", False),
    ]
    assert [publishes_unready(raw, codec) for codec, raw, _ in services] == [wanted for _, _, wanted in services]


@pytest.mark.parametrize("raw", [b"{}", b'{"endpoints":5}', b'{"endpoints":[1,null]}',
                                 b'{"endpoints":[{"targetRef":1,"conditions":2}]}',
                                 b'{"endpoints":[{"targetRef":{"uid":["a"]}}]}'])  # fmt: skip
def test_what_is_odd_stays_as_it_is(raw: bytes) -> None:
    assert with_local_pods(raw, JSON, {"a": MOVED}) == raw
