"""How commands end that need nothing of click."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from tunnel.aio.process.config import ConfigError
from tunnel.aio.process.outcome import exit_code, say


def raising(error: Exception) -> Callable[[], object]:
    def work() -> object:
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "code", "said"),
    [
        (lambda: None, 0, ""),
        (lambda: 3, 3, ""),
        (raising(ConfigError(["a: is wrong", "b"])), 2, "Error [LL1004]: a: is wrong\nError [LL1004]: b\n"),
        (raising(ZeroDivisionError("by zero")), 1, "Error [LL6001]: by zero (LONGLINE_DEBUG=1 shows where)\n"),
    ],
)
def test_codes_and_lines(
    work: Callable[[], object],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("LONGLINE_DEBUG", raising=False)
    assert exit_code(work) == code
    assert capsys.readouterr().err == said


def test_errors_go_through_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGLINE_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        exit_code(raising(ZeroDivisionError()))


def test_an_interrupt_is_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> object:
        raise KeyboardInterrupt

    assert exit_code(work) == 1
    assert capsys.readouterr().err == "Aborted!\n"


class _Gone(io.StringIO):
    def write(self, _text: str) -> int:
        raise BrokenPipeError


def test_that_nobody_reads_it_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LONGLINE_DEBUG", raising=False)
    monkeypatch.setattr("sys.stderr", _Gone())
    say("one", "two")
    assert exit_code(raising(ZeroDivisionError())) == 1
