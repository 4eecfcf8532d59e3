"""tunnel.core.wire.errors: one tree, and a code for each error."""

from __future__ import annotations

import pytest

from protos import tunnel_pb2 as pb
from tunnel.core.wire.errors import (
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


@pytest.mark.parametrize("value", [9, 15, 35, 1 << 31])
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
