"""What our commands have in common: exit codes and errors for people."""

from __future__ import annotations

import click
import pytest

from tunnel.aio.process.command import AddressParameter, Failed, command_line
from tunnel.aio.process.config import ConfigError
from tunnel.core.wire.faults import TOKEN_EXPIRED


@click.group()
def group() -> None:
    """Commands of this test."""


@group.command()
def fine() -> None:
    click.echo("fine")


@group.command()
def fails() -> None:
    raise Failed("it is too late", TOKEN_EXPIRED)


@group.command()
def misconfigured() -> None:
    raise ConfigError(["a.toml:1: a: is wrong", "a.toml:2: b: is wrong"])


@group.command()
def breaks() -> None:
    raise ZeroDivisionError("by zero")


@group.command()
def breaks_in_silence() -> None:
    raise ZeroDivisionError


@group.command()
def is_interrupted() -> None:
    raise KeyboardInterrupt


@group.command()
@click.option("--server", type=AddressParameter())
def dial(server: object) -> None:
    click.echo(server)


def outcome(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[object, str, str]:
    monkeypatch.setattr("sys.argv", ["prog", *words])
    with pytest.raises(SystemExit) as caught:
        command_line(group)
    output = capsys.readouterr()
    return caught.value.code, output.out, output.err


@pytest.mark.parametrize(
    ("words", "code", "out", "err"),
    [
        (["fine"], 0, "fine\n", ""),
        (["fails"], 1, "", "Error [LL2013]: it is too late\n"),
        (["misconfigured"], 2, "", "Error [LL1004]: a.toml:1: a: is wrong\nError [LL1004]: a.toml:2: b: is wrong\n"),
        (["breaks"], 1, "", "Error [LL6001]: by zero (LONGLINE_DEBUG=1 shows where)\n"),
        (["breaks-in-silence"], 1, "", "Error [LL6001]: ZeroDivisionError (LONGLINE_DEBUG=1 shows where)\n"),
        (["dial", "--server", "[::1]:22"], 0, "[::1]:22\n", ""),
    ],
)
def test_exit_codes_and_errors(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], code: int, out: str, err: str
) -> None:
    monkeypatch.delenv("LONGLINE_DEBUG", raising=False)
    assert outcome(monkeypatch, capsys, *words) == (code, out, err)


@pytest.mark.parametrize("words", [["nothing"], ["fine", "--odd"], ["dial", "--server", "x"]])
def test_slips_exit_with_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    code, out, err = outcome(monkeypatch, capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: ")
    assert "\nError [LL1001]: " in err


def test_an_interrupt_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = outcome(monkeypatch, capsys, "is-interrupted")
    assert code == 1
    assert err.strip() == "Aborted!"


def test_who_asks_for_a_traceback_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LONGLINE_DEBUG", "1")
    monkeypatch.setattr("sys.argv", ["prog", "breaks"])
    with pytest.raises(ZeroDivisionError):
        command_line(group)
