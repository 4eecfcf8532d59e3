"""tunnel.core.wire.handshake: Hello, Welcome and Refusal, and everything that is refused in them (PROTO 3)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protos import tunnel_pb2 as pb
from tunnel.core.wire import handshake as h
from tunnel.core.wire.errors import Code, RemoteProtocolError, SessionRefused
from tunnel.core.wire.features import FEATURES, common
from tunnel.core.wire.limits import MAX_FACT_CODE_BYTES, MAX_FACT_TEXT_BYTES, MAX_FACTS, MAX_NODE_BYTES, Limits, Timing

ID = b"i" * 16


def _hello(**changes: object) -> pb.Hello:
    message = h.encode_hello(
        version="1.2", instance_id=ID, node=pb.Node(hostname="box-7", labels={"a": "b"}), limits=Limits()
    )
    hello = pb.Envelope.FromString(message).hello
    for name, value in changes.items():
        setattr(hello, name, value)
    return hello


def _welcome(**changes: object) -> bytes:
    message = h.encode_welcome(
        protocol=1, version="1.2", session_id=ID, resumed=True, last_received=9, limits=Limits(), timing=Timing()
    )
    envelope = pb.Envelope.FromString(message)
    for name, value in changes.items():
        setattr(envelope.welcome, name, value)
    return envelope.SerializeToString()


def _bytes(hello: pb.Hello) -> bytes:
    return pb.Envelope(hello=hello).SerializeToString()


def test_hello_says_who_resumes_what() -> None:
    message = h.encode_hello(
        version="1.2",
        instance_id=ID,
        node=pb.Node(hostname="box-7", services=["kubelet"]),
        limits=Limits(max_streams=7),
        resume_session_id=b"s" * 16,
        last_received=41,
    )
    hello = h.decode_hello(message)
    assert (hello.protocol_min, hello.protocol_max, hello.version) == (1, 1, "1.2")
    assert (hello.instance_id, hello.resume_session_id, hello.last_received) == (ID, b"s" * 16, 41)
    assert (hello.node.hostname, list(hello.node.services), hello.limits.max_streams) == ("box-7", ["kubelet"], 7)


def test_hello_of_a_new_session_resumes_nothing() -> None:
    hello = h.decode_hello(_bytes(_hello()))
    assert (hello.resume_session_id, hello.last_received) == (b"", 0)


@pytest.mark.parametrize(
    "envelope", [pb.Envelope(), pb.Envelope(packet=pb.Packet()), pb.Envelope(refusal=pb.Refusal())]
)
def test_first_message_must_be_hello(envelope: pb.Envelope) -> None:
    with pytest.raises(RemoteProtocolError, match="not a Hello"):
        h.decode_hello(envelope.SerializeToString())


@pytest.mark.parametrize(
    "hello",
    [
        _hello(instance_id=b""),
        _hello(instance_id=b"i" * 17),
        _hello(resume_session_id=b"s" * 15),
        pb.Hello(instance_id=ID, node=pb.Node(addresses=["a"] * 257)),
        pb.Hello(instance_id=ID, node=pb.Node(services=["a"] * 257)),
        pb.Hello(instance_id=ID, node=pb.Node(labels={str(one): "" for one in range(257)})),
        pb.Hello(instance_id=ID, node=pb.Node(hostname="h" * 1025)),
        pb.Hello(instance_id=ID, node=pb.Node(labels={"k": "v" * 1025})),
        pb.Hello(instance_id=ID, node=pb.Node(labels={"k" * 1025: "v"})),
        pb.Hello(instance_id=ID, version="v" * 1025),
        pb.Hello(instance_id=ID, features=["f"] * 65),
        pb.Hello(instance_id=ID, features=["f" * 64]),
        pb.Hello(instance_id=ID, features=[""]),
        pb.Hello(instance_id=ID, features=["a b"]),
    ],
)
def test_hello_out_of_bounds_is_a_fault(hello: pb.Hello) -> None:
    with pytest.raises(RemoteProtocolError, match="Hello with"):
        h.decode_hello(_bytes(hello))


def test_hello_at_its_bounds_is_taken() -> None:
    node = pb.Node(hostname="h" * 1024, addresses=["a"] * 256, labels={"k" * 1024: "v" * 1024})
    assert h.decode_hello(_bytes(pb.Hello(instance_id=ID, node=node, features=["f" * 63] * 64))).node == node


@pytest.mark.parametrize("decode", [h.decode_hello, h.decode_answer])
def test_handshake_is_held_to_64_kib(decode: object) -> None:
    assert callable(decode)
    with pytest.raises(RemoteProtocolError, match="at most 65536"):
        decode(bytes(65537))


FACT = pb.Fact(code="A" * MAX_FACT_CODE_BYTES, text="x" * MAX_FACT_TEXT_BYTES)


def test_a_node_at_its_bounds_is_taken_by_itself() -> None:
    node = pb.Node(hostname="box-7", labels={"site": "lyon"}, facts=[FACT] * MAX_FACTS)
    assert h.decode_node(node.SerializeToString()) == node


def test_what_a_node_says_is_fit_to_be_shown() -> None:
    said = pb.Node(
        hostname="box\x1b[31m-7",
        addresses=["10.0.0.1", "10.0.0.2\n"],
        services=["ssh\r"],
        labels={"site": "lyon\t", "a\n": "1", "b": "2"},
        facts=[pb.Fact(code="A", text="two\nlines"), FACT],
    )
    shown = h.decode_node(said.SerializeToString())
    assert shown == pb.Node(
        hostname="box?-7",
        addresses=["10.0.0.1", "10.0.0.2?"],
        services=["ssh?"],
        labels={"site": "lyon?", "a?": "1", "b": "2"},
        facts=[pb.Fact(code="A", text="two?lines"), FACT],
    )


@pytest.mark.parametrize(
    "data",
    [
        bytes(MAX_NODE_BYTES + 1),
        b"\xff\xff\xff",
        pb.Node(facts=[FACT] * (MAX_FACTS + 1)).SerializeToString(),
        pb.Node(facts=[pb.Fact(code="A", text="x" * (MAX_FACT_TEXT_BYTES + 1))]).SerializeToString(),
        pb.Node(facts=[pb.Fact(code="A" * (MAX_FACT_CODE_BYTES + 1))]).SerializeToString(),
        pb.Node(facts=[pb.Fact(code="no word")]).SerializeToString(),
    ],
)
def test_a_node_out_of_bounds_is_a_fault(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        h.decode_node(data)


def test_newest_common_protocol_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h, "PROTOCOL_MIN", 2)
    monkeypatch.setattr(h, "PROTOCOL_MAX", 4)
    assert h.choose_protocol(_hello(protocol_min=1, protocol_max=3)) == 3
    assert h.choose_protocol(_hello(protocol_min=3, protocol_max=9)) == 4


@pytest.mark.parametrize(("lowest", "highest"), [(2, 3), (0, 0), (5, 1)])
def test_no_common_protocol_is_refused(lowest: int, highest: int) -> None:
    with pytest.raises(SessionRefused) as caught:
        h.choose_protocol(_hello(protocol_min=lowest, protocol_max=highest))
    assert caught.value.code is Code.UNSUPPORTED_VERSION
    assert f"{lowest}-{highest}" in str(caught.value)


def test_welcome_brings_session_and_times() -> None:
    timing = Timing(suspect_after_s=1.5, dead_after_s=2.5, resume_window_s=60.0)
    message = h.encode_welcome(
        protocol=1, version="2.0", session_id=ID, resumed=True, last_received=9, limits=Limits(), timing=timing
    )
    welcome = h.decode_answer(message)
    assert (welcome.protocol, welcome.version, welcome.session_id) == (1, "2.0", ID)
    assert (welcome.resumed, welcome.last_received, welcome.timing) == (True, 9, timing)
    assert welcome.limits.max_packet_bytes == Limits().max_packet_bytes


@pytest.mark.parametrize(
    "changes",
    [
        {"session_id": b"short"},
        {"protocol": 0},
        {"protocol": 2},
        {"suspect_after_ms": 0},
        {"suspect_after_ms": 15000},
        {"dead_after_ms": 10},
    ],
)
def test_welcome_out_of_bounds_is_a_fault(changes: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError, match="Welcome with"):
        h.decode_answer(_welcome(**changes))


def test_welcome_out_of_its_lists_bounds_is_a_fault() -> None:
    for field, good, bad in (
        ("features", ["f" * 63] * 64, (["f"] * 65, ["f" * 64], ["a b"])),
        ("servers", ["h" * 261] * 64, (["h:1"] * 65, ["h" * 262], [""], ["h\n:1"])),
    ):
        assert set(good) >= set(getattr(h.decode_answer(_with(field, good)), field))
        for texts in bad:
            with pytest.raises(RemoteProtocolError, match="Welcome with"):
                h.decode_answer(_with(field, texts))
    assert h.decode_answer(_welcome(server_id="s" * 64)).server_id == "s" * 64
    for server_id in ("s" * 65, "a b"):
        with pytest.raises(RemoteProtocolError, match="Welcome with"):
            h.decode_answer(_welcome(server_id=server_id))


def _with(field: str, texts: list[str]) -> bytes:
    envelope = pb.Envelope.FromString(_welcome())
    getattr(envelope.welcome, field).extend(texts)
    return envelope.SerializeToString()


def test_features_are_what_both_sides_have() -> None:
    hello = _hello()
    assert set(hello.features) == FEATURES
    hello.features.append("of-a-later-build")
    assert common(hello.features) == FEATURES
    assert common(pb.Hello().features) == frozenset()
    message = h.encode_welcome(
        protocol=1,
        version="2.0",
        session_id=ID,
        resumed=False,
        last_received=0,
        limits=Limits(),
        timing=Timing(),
        features=common(hello.features),
        server_id="a1b2",
        servers=["cloud-2.example:8443"],
    )
    welcome = h.decode_answer(message)
    assert (welcome.features, welcome.server_id, welcome.servers) == (FEATURES, "a1b2", ("cloud-2.example:8443",))
    older = h.decode_answer(_welcome())
    assert (older.features, older.server_id, older.servers) == (frozenset(), "", ())
    assert h.decode_answer(_with("features", ["never-offered"])).features == frozenset()


@pytest.mark.parametrize("envelope", [pb.Envelope(), pb.Envelope(hello=pb.Hello()), pb.Envelope(packet=pb.Packet())])
def test_answer_must_be_welcome_or_refusal(envelope: pb.Envelope) -> None:
    with pytest.raises(RemoteProtocolError, match="neither Welcome nor Refusal"):
        h.decode_answer(envelope.SerializeToString())


def test_refusal_comes_back_as_it_was() -> None:
    message = h.encode_refusal(SessionRefused("x" * 2000, Code.IDENTITY_REJECTED, 2.5))
    with pytest.raises(SessionRefused) as caught:
        h.decode_answer(message)
    assert (caught.value.code, caught.value.retry_after_s) == (Code.IDENTITY_REJECTED, 2.5)
    assert caught.value.text == "x" * 1024


def test_refusal_without_a_reason_says_so() -> None:
    error = h.decode_refusal(pb.Refusal(code=4711))
    assert (error.text, error.code, error.retry_after_s) == ("refused without a reason", Code.INTERNAL, 0.0)


@given(st.binary(max_size=200))
def test_rubbish_is_a_fault(message: bytes) -> None:
    for decode in (h.decode_hello, h.decode_answer):
        with pytest.raises((RemoteProtocolError, SessionRefused)):
            decode(message)
