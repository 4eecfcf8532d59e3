"""Which command lines start a daemon without the command line's machinery, and with which configuration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunnel.aio.process import plain_run

DAEMON = "edge-agent"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    made = [tmp_path / "first.toml", tmp_path / "second.toml"]
    monkeypatch.setattr(plain_run, "config_places", lambda _daemon: made)
    monkeypatch.delenv("LONGLINE_EDGE_AGENT_CONFIG", raising=False)
    return made


@pytest.mark.usefixtures("places")
def test_a_named_file_is_taken_whether_it_is_there_or_not() -> None:
    assert plain_run.plain_run(["run", "--config", "a/b.toml"], DAEMON) == Path("a/b.toml")


def test_without_one_the_first_place_that_has_a_file_is_taken(places: list[Path]) -> None:
    assert plain_run.plain_run(["run"], DAEMON) is None, "click says that there is none"
    places[1].touch()
    assert plain_run.plain_run(["run"], DAEMON) == places[1]
    places[0].touch()
    assert plain_run.plain_run(["run"], DAEMON) == places[0]


def test_the_environment_comes_before_the_places(places: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    places[0].touch()
    monkeypatch.setenv("LONGLINE_EDGE_AGENT_CONFIG", "named.toml")
    assert plain_run.plain_run(["run"], DAEMON) == Path("named.toml")
    assert plain_run.plain_run(["run", "--config", "other.toml"], DAEMON) == Path("other.toml")
    monkeypatch.setenv("LONGLINE_EDGE_AGENT_CONFIG", "")
    assert plain_run.plain_run(["run"], DAEMON) == places[0]


def test_a_file_that_only_others_may_look_at_is_there(places: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_words: object, **_options: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "stat", refuse)
    assert plain_run.config_in_its_place(DAEMON) == places[0]
    assert plain_run.plain_run(["run"], DAEMON) == places[0], "reading it says why it cannot be read"
    assert plain_run.plain_run(["run", "--config", "/closed/x.toml"], DAEMON) == Path("/closed/x.toml")


@pytest.mark.usefixtures("places")
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["check"],
        ["run", "--help"],
        ["run", "--config"],
        ["run", "x.toml"],
        ["run", "--config", "x.toml", "more"],
        ["--version"],
    ],
)
def test_everything_else_is_clicks(words: list[str]) -> None:
    assert plain_run.plain_run(words, DAEMON) is None


def test_a_folder_is_clicks_to_refuse(tmp_path: Path) -> None:
    assert plain_run.plain_run(["run", "--config", str(tmp_path)], DAEMON) is None
