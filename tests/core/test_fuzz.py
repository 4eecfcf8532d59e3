"""A short run of the fuzzer with every run of the tests, and that it would find what it is there for."""

from __future__ import annotations

import pytest

from tests.fuzz import decoder
from tunnel.core.streams.receive_half import ReceiveHalf
from tunnel.core.wire import handshake


def test_short_run_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert decoder.main(["--seconds", "2", "--seed", "1"]) == 0
    assert "nothing found" in capsys.readouterr().out


def test_error_that_escapes_a_decoder_is_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(message: bytes) -> object:
        if len(message) > 5:
            raise KeyError(message[5])
        return handshake.decode_answer(message)

    monkeypatch.setitem(decoder.TARGETS, "decode_answer", broken)
    assert decoder.main(["--seconds", "20", "--seed", "1"]) == 1
    assert "bytes.fromhex(" in capsys.readouterr().err


def test_session_that_holds_more_than_it_granted_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def push(half: ReceiveHalf, data: bytes) -> None:
        half.chunks.append(data)
        half.queued += len(data)

    monkeypatch.setattr(ReceiveHalf, "push", push)
    with pytest.raises(decoder.Failure, match="failure in session"):
        decoder.run(20.0, 1)
