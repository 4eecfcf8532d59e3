"""tunnel.core.wire.errors: one tree, and a code for each error."""

from __future__ import annotations

import pytest

from protos import tunnel_pb2 as pb
from tunnel.core.wire import faults
from tunnel.core.wire.errors import (
    FAULT_OF_CODE,
    Code,
    LocalProtocolError,
    OpenRefused,
    RemoteProtocolError,
    Scope,
    SessionLost,
    SessionRefused,
    StreamBusy,
    StreamClosed,
    StreamError,
    StreamReset,
    TunnelError,
)


@pytest.mark.parametrize("code", Code)
def test_codes_travel_as_numbers(code: Code) -> None:
    sent = pb.Reset.FromString(pb.Reset(code=code).SerializeToString())
    assert Code.from_wire(sent.code) is code
    assert code.label == code.label.lower()


@pytest.mark.parametrize("value", [12, 15, 35, 1 << 31])
def test_code_of_a_later_build_is_internal(value: int) -> None:
    assert Code.from_wire(value) is Code.INTERNAL


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (LocalProtocolError, Code.INTERNAL),
        (RemoteProtocolError, Code.PROTOCOL_ERROR),
        (OpenRefused, Code.REFUSED),
        (StreamReset, Code.CANCELLED),
        (SessionLost, Code.SESSION_LOST),
        (StreamClosed, Code.CANCELLED),
        (StreamBusy, Code.INTERNAL),
    ],
)
def test_each_error_has_a_code_of_its_own_and_takes_another(kind: type[TunnelError], code: Code) -> None:
    assert kind().code is code
    assert kind("text", Code.LIMIT_EXCEEDED).code is Code.LIMIT_EXCEEDED
    assert issubclass(kind, StreamError) == (kind.scope is Scope.STREAM)


def test_text_is_for_people_and_the_code_stands_in_for_it() -> None:
    assert str(StreamReset("10.1.0.9:80: connection reset")) == "10.1.0.9:80: connection reset"
    assert str(StreamReset(code=Code.CONNECTION_RESET)) == "connection reset"
    assert StreamReset("why").text == "why"


def test_refused_session_says_when_to_come_back() -> None:
    error = SessionRefused("full", Code.LIMIT_EXCEEDED, 2.5)
    assert (error.text, error.code, error.retry_after_s) == ("full", Code.LIMIT_EXCEEDED, 2.5)
    assert SessionRefused("full", Code.LIMIT_EXCEEDED).retry_after_s == 0.0
    assert error.scope is Scope.SESSION


def test_every_code_stands_for_a_cause_and_an_error_may_name_a_closer_one() -> None:
    assert set(FAULT_OF_CODE) == set(Code)
    assert OpenRefused("no", Code.NOT_ALLOWED).fault is faults.NOT_ALLOWED
    assert OpenRefused("no", Code.NOT_ALLOWED, faults.NOT_ALLOWED_BY_BOX).fault is faults.NOT_ALLOWED_BY_BOX


def test_a_peer_is_told_the_closer_cause_in_front_of_the_text() -> None:
    plain = OpenRefused("box-7:22 is not allowed", Code.NOT_ALLOWED)
    closer = OpenRefused("box-7:22 is not allowed", Code.NOT_ALLOWED, faults.NOT_ALLOWED_BY_BOX)
    assert (plain.told, closer.told) == ("box-7:22 is not allowed", "LL4102: box-7:22 is not allowed")
    for error in (plain, closer):
        heard = OpenRefused.from_peer(error.told, error.code)
        assert (heard.text, heard.code, heard.fault) == (error.text, error.code, error.fault)
